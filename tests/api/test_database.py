"""What the database cannot store or answer is a documented error; a bug is a 500."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from registry.database import build_engine
from registry.settings import Settings
from tests.api.conftest import Start
from tests.api.test_limits import TEXT, mark, upload

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(start: Start) -> TestClient:
    return start()


def get_app(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


def test_text_that_cannot_be_stored_is_refused(client: TestClient) -> None:
    address = f"/documents/{upload(client)}"
    nul = "\0"
    marked = mark("Bell")
    assert client.post(f"{address}/annotations", json=marked | {"notes": nul}).status_code == 422
    refused = client.post(f"{address}/feedback", json={"annotations": [marked], "note": nul})
    assert (refused.status_code, "NUL" in refused.json()["detail"]) == (422, True)
    for label in (nul, "", "x" * 101, "party "):
        value = {"start": 0, "end": 4, "labels": [label]}
        export = [{"annotations": [{"result": [{"type": "labels", "value": value}]}]}]
        assert client.post(f"{address}/annotations/ingest", json=export).status_code == 422
    assert client.get(f"{address}/annotations").json() == []


def test_deletion_whose_commit_fails_keeps_the_file(start: Start, settings: Settings, database_url: str) -> None:
    client = start()
    document = upload(client)
    engine = build_engine(settings.model_copy(update={"database_url": SecretStr(database_url)}))
    with engine.begin() as connection:  # a row that the commit misses the document for, whatever the request did before
        connection.execute(text("CREATE TABLE kept (id VARCHAR REFERENCES document DEFERRABLE INITIALLY DEFERRED)"))
        connection.execute(text("INSERT INTO kept SELECT id FROM document"))
    assert client.delete(f"/documents/{document}").status_code == 409
    assert client.get(f"/documents/{document}/content").text == TEXT
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE kept"))
    assert client.delete(f"/documents/{document}").status_code == 204
    assert not list(Path(settings.document_store_url).iterdir())
    engine.dispose()


def test_upload_whose_commit_fails_leaves_no_file(client: TestClient, settings: Settings) -> None:
    upload(client)
    (stored,) = Path(settings.document_store_url).iterdir()

    def fail(_: object) -> None:
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    event.listen(Session, "before_commit", fail)
    refused = client.post("/documents", files={"file": ("b.txt", b"Bell pays Acme Ltd.")})
    event.remove(Session, "before_commit", fail)
    assert refused.status_code == 503
    assert list(Path(settings.document_store_url).iterdir()) == [stored]
    assert upload(client, "Bell pays Acme Ltd.")


def test_lone_surrogate_is_refused_in_every_stored_field(client: TestClient) -> None:
    half, marked = "\ud800", mark("Bell")
    label = {"type": "labels", "value": {"start": 0, "end": 4, "labels": ["party"]}}
    label_of_half = {**label, "value": {"start": 0, "end": 4, "labels": [half]}}
    bodies: list[tuple[str, object]] = [
        ("annotations", marked | {"type": f"part{half}"}),
        ("annotations", marked | {"value": half}),
        ("annotations", marked | {"reviewer": half}),
        ("annotations", marked | {"notes": half}),
        ("feedback", {"annotations": [marked], "note": half}),
        ("feedback", {"annotations": [marked], "reviewer": half}),
        ("annotations/ingest", [{"annotations": [{"result": [label], "completed_by": {"email": half}}]}]),
        ("annotations/ingest", [{"annotations": [{"result": [label_of_half]}]}]),
    ]
    address = f"/documents/{upload(client)}"
    for path, body in bodies:
        refused = client.post(f"{address}/{path}", content=json.dumps(body), headers=JSON)
        assert refused.status_code == 422, body
        assert r"Leave out '\ud800'" in refused.json()["detail"]
    assert client.get(f"{address}/annotations").json() == []


def test_identifier_that_cannot_be_stored_is_not_found(client: TestClient) -> None:
    assert client.get("/documents/%00").status_code in (404, 422)
    assert client.get("/jobs/%00").status_code in (404, 422)
    assert client.post("/training-runs", json={"document_ids": ["\0"]}).status_code in (404, 422)
    assert client.get("/documents", params={"offset": 10**30}).status_code == 422


def test_request_while_the_database_is_down_is_answered_503(
    client: TestClient, database_url: str, tmp_path: Path
) -> None:
    away = make_url(database_url).set(database=str(tmp_path)).render_as_string(hide_password=False)
    state = get_app(client).state
    state.services = replace(state.services, engine=build_engine(Settings(database_url=SecretStr(away))))
    answer = client.get("/documents")
    assert (answer.status_code, "database" in answer.json()["detail"]) == (503, True)


def test_bug_is_answered_500_and_not_as_an_outage(client: TestClient) -> None:
    with get_app(client).state.services.engine.begin() as connection:
        connection.execute(text("ALTER TABLE document RENAME TO missing"))
    answer = TestClient(client.app, raise_server_exceptions=False).get("/documents", headers=client.headers)
    assert answer.status_code == 500
    assert "the log of the API has the trace" in answer.json()["detail"]


def test_status_reports_a_broken_part_and_all_others(client: TestClient) -> None:
    state = get_app(client).state
    state.services = replace(state.services, models=None)
    status = client.get("/system-status").json()
    assert status["mlflow"] == {"ok": False, "detail": "AttributeError: the log of the API has the trace"}
    assert status["database"]["ok"]


def test_store_that_is_away_is_reported_and_nothing_is_half_stored(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    client = start(document_store_url=str(tmp_path / "file"))
    refused = client.post("/documents", files={"file": ("a.txt", b"Acme Ltd pays Bell.")})
    assert (refused.status_code, "document store fails (Not a directory)" in refused.json()["detail"]) == (503, True)
    assert client.get("/documents").json()["total"] == 0
    status = client.get("/system-status").json()
    assert not status["ok"]
    assert status["document_store"]["detail"].startswith("The document store fails")
    assert status["database"]["ok"]
