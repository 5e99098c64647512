"""Jobs as the client sees them, where no run is needed for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy import Engine, event
from sqlmodel import Session

from feedback.claiming import cancel_jobs
from registry.jobs import get_job
from tests.api.conftest import Start
from tests.api.test_limits import mark, upload


def test_cancelled_feedback_is_answered_as_cancelled_and_becomes_a_new_job_when_sent_again(
    start: Start, session: Session
) -> None:
    client = start()
    address, body = f"/documents/{upload(client)}/feedback", {"annotations": [mark("Bell")]}
    job_id = client.post(address, json=body).json()["job_id"]
    get_job(session, job_id).launched_run_id = "run"
    cancel_jobs(session, "run")
    session.commit()
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], "send the feedback again" in job["message"]) == ("cancelled", True)
    assert client.post(address, json=body).json()["job_id"] != job_id


@contextmanager
def count_statements() -> Iterator[list[str]]:
    statements: list[str] = []

    def record(*arguments: object) -> None:
        if threading.current_thread().name not in {"launcher", "encoding"}:
            statements.append(str(arguments[2]))

    event.listen(Engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", record)


def test_page_of_jobs_asks_as_often_as_one_job(start: Start) -> None:
    client, counts = start(), []
    for number in range(6):
        document = upload(client, f"Acme Ltd pays Bell {number}.")
        client.post(f"/documents/{document}/feedback", json={"annotations": [mark("Bell")]})
        with count_statements() as statements:
            page = client.get("/jobs").json()["items"]
        assert page[0]["document_ids"] == [document]
        counts.append(len(statements))
    assert len(page) == 6
    assert len(set(counts[1:])) == 1


def test_jobs_are_answered_while_prefect_does_not_answer(start: Start, session: Session) -> None:
    client = start()
    document = upload(client)
    job_id = client.post(f"/documents/{document}/feedback", json={"annotations": [mark("Bell")]}).json()["job_id"]
    get_job(session, job_id).launched_run_id = str(uuid4())
    session.commit()
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["progress"]) == ("pending", 0)
    assert job["message"].startswith("Prefect does not answer")
    assert [each["status"] for each in client.get("/jobs").json()["items"]] == ["pending"]


def test_jobs_on_a_document_are_listed_newest_first_and_no_others(start: Start) -> None:
    client = start()
    document, other = upload(client), upload(client, "Acme Ltd pays Bell twice.")
    for each in (document, other):
        client.post(f"/documents/{each}/feedback", json={"annotations": [mark("Bell")]})
    second = client.post(f"/documents/{document}/feedback", json={"annotations": [mark("Acme Ltd")]}).json()
    page = client.get("/jobs", params={"document_id": document}).json()
    assert ([job["document_ids"] for job in page["items"]], page["total"]) == ([[document]] * 2, 2)
    assert page["items"][0]["job_id"] == second["job_id"]
    assert client.get("/jobs", params={"document_id": "none"}).json()["items"] == []
