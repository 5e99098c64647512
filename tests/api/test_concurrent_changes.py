"""Requests that change one document at the same time, on PostgreSQL: there, writers wait for a row, not for a file."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, text
from sqlmodel import Session

from registry.tables import Annotation, Document, JobDocument
from tests.api.conftest import Start
from tests.api.test_limits import mark, upload
from tests.postgresql import PostgreSQL, create_database

Send = Callable[[], Any]
SPAN = {"type": "labels", "value": {"start": 14, "end": 18, "labels": ["party"]}}
SECRET = mark("Bell", notes="secret note")


@pytest.fixture
def database_url(postgresql: PostgreSQL) -> str:
    return create_database(postgresql)


@contextmanager
def listen(name: str, listener: Callable[..., None]) -> Iterator[None]:
    event.listen(Session, name, listener)
    try:
        yield
    finally:
        event.remove(Session, name, listener)


@contextmanager
def delete_documents_after_commit(engine: Engine) -> Iterator[None]:
    """Delete all documents as soon as a request has committed."""

    def delete(session: Session) -> None:
        if session.info:  # a request's principal; the check of its key has none
            with engine.begin() as connection:
                connection.execute(text("DELETE FROM document"))

    with listen("after_commit", delete):
        yield


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/documents/{document}/annotations", mark("Acme"), 201),
        ("PUT", "/annotations/{annotation}", mark("Acme"), 200),
        ("POST", "/documents/{document}/annotations/ingest", [{"annotations": [{"result": [SPAN]}]}], 201),
    ],
)
def test_row_that_is_deleted_right_after_the_commit_is_answered(
    start: Start, engine: Engine, method: str, path: str, body: Any, status: int
) -> None:
    client = start()
    document = upload(client)
    annotation = client.post(f"/documents/{document}/annotations", json=mark("Bell")).json()["id"]
    unraised = TestClient(client.app, headers=dict(client.headers), raise_server_exceptions=False)
    with delete_documents_after_commit(engine):
        answer = unraised.request(method, path.format(document=document, annotation=annotation), json=body)
    assert (answer.status_code, bool(answer.json())) == (status, True)


def test_upload_that_is_deleted_right_after_the_commit_is_answered(start: Start, engine: Engine) -> None:
    client = start()
    unraised = TestClient(client.app, headers=dict(client.headers), raise_server_exceptions=False)
    with delete_documents_after_commit(engine):
        answer = unraised.post("/documents", files={"file": ("a.txt", b"text")})
    assert (answer.status_code, "There is no document" in answer.json()["detail"]) == (404, True)


def wait_until_one_waits(engine: Engine) -> None:
    """Wait until a statement waits for another transaction."""
    until, waiting = time.monotonic() + 20, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(text(waiting)):
            assert time.monotonic() < until, "No statement waits"
            time.sleep(0.01)


def run_both(engine: Engine, table: type, first: Send, second: Send) -> tuple[Any, Any]:
    """Start the second request when the first has changed a table's rows; commit the first when the second waits."""
    changed, released = threading.Event(), threading.Event()

    def pause(session: Session, _: object) -> None:
        rows = [*session.new, *session.dirty, *session.deleted]
        if not changed.is_set() and any(isinstance(row, table) for row in rows):
            changed.set()
            assert released.wait(30)

    with ThreadPoolExecutor(2) as pool, listen("after_flush", pause):
        answers = [pool.submit(first)]
        try:
            assert changed.wait(20)
            answers.append(pool.submit(second))
            wait_until_one_waits(engine)
        finally:
            released.set()
        return answers[0].result(), answers[1].result()


def list_changes(client: TestClient, document: str, annotation: str) -> dict[str, Send]:
    return {
        "change": lambda: client.put(f"/annotations/{annotation}", json=mark("Acme")),
        "delete": lambda: client.delete(f"/annotations/{annotation}"),
        "feedback": lambda: client.post(f"/documents/{document}/feedback", json={"note": "secret note"}),
    }


@pytest.mark.parametrize(("name", "table"), [("change", Annotation), ("delete", Annotation), ("feedback", JobDocument)])
def test_deleted_document_leaves_nothing_of_a_change_that_was_under_way(
    start: Start, engine: Engine, name: str, table: type
) -> None:
    client = start()
    document = upload(client)
    annotation = client.post(f"/documents/{document}/annotations", json=SECRET).json()["id"]
    change = list_changes(client, document, annotation)[name]
    changed, deleted = run_both(engine, table, change, lambda: client.delete(f"/documents/{document}"))
    assert (changed.is_success, deleted.status_code) == (True, 204)
    left = client.get("/audit").text + client.get("/jobs").text
    assert annotation in left
    assert "secret" not in left
    assert "Bell" not in left


@pytest.mark.parametrize("name", ["change", "delete"])
def test_change_of_a_document_that_is_being_deleted_finds_no_document(start: Start, engine: Engine, name: str) -> None:
    client = start()
    document = upload(client)
    annotation = client.post(f"/documents/{document}/annotations", json=SECRET).json()["id"]
    change = list_changes(client, document, annotation)[name]
    deleted, refused = run_both(engine, Document, lambda: client.delete(f"/documents/{document}"), change)
    assert (deleted.status_code, refused.status_code) == (204, 410)
    assert refused.json()["detail"].startswith(f"Document {document} was deleted on ")
