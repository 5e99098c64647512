"""The client against a server in this process, without Prefect and MLflow."""

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.import_schemas import ImportState
from api.schemas import AnnotationCreate, JobDetail
from client.errors import ApiError
from client.reviewer_client import ReviewerClient
from feedback.job_state import JobStatus
from intake.formats.names import FORMATS, FormatName
from registry.database import open_session
from registry.jobs import Review
from registry.keys import revoke_key
from registry.listed_documents import Order
from registry.outcome import Decision
from registry.settings import Settings
from registry.tables import JobType
from tests.faults import wait_until
from tests.feedback.jobs import outcome
from tests.running_api import RunningApi, run_api

TEXT = "Acme Ltd 😀 sells to Bell plc.\r\n"
PARTY = AnnotationCreate(type="party", value="Bell plc", start=20, end=28)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def client(api: RunningApi) -> Iterator[ReviewerClient]:
    with ReviewerClient(api.url, api.key) as client:
        yield client


def write_records(count: int) -> list[str]:
    return [json.dumps({"text": f"Acme {number}", "label": [[0, 4, "party"]]}) for number in range(count)]


def test_contract_is_uploaded_read_annotated_and_taught(client: ReviewerClient) -> None:
    document = client.upload("a.txt", TEXT.encode())
    assert (document.filename, document.character_count) == ("a.txt", len(TEXT))
    assert client.read_document(document.id) == document == client.upload("b.txt", TEXT.encode())
    assert client.read_text(document.id) == TEXT
    assert client.extract(document.id).model_version is None
    annotation = client.annotate(document.id, PARTY)
    assert client.list_annotations(document.id) == [annotation]
    assert client.list_documents(Order.UNCERTAIN, Review.NEW).items == [client.read_document(document.id)]
    assert client.list_documents(review=Review.REVIEWED).total == 0
    job = client.teach(document.id)
    assert (job.job_type, job.document_ids) == (JobType.FEEDBACK, [document.id])
    again = client.teach(document.id, [PARTY], reviewer="rui", note="sold", idempotency_key="1")
    assert again.job_id == job.job_id, "The same annotations are the same feedback"
    assert client.train([document.id]).job_type == JobType.TRAINING_RUN
    assert client.read_job(job.job_id).status == JobStatus.PENDING


def test_refused_request_raises_the_detail_of_the_api(api: RunningApi, client: ReviewerClient) -> None:
    with pytest.raises(ApiError, match="404: There is no document x") as refused:
        client.read_text("x")
    assert (refused.value.status_code, refused.value.detail) == (404, "There is no document x")
    with pytest.raises(ApiError, match="401: Send a valid API key"), ReviewerClient(api.url, "cf_a_b") as stranger:
        next(stranger.watch("x"))
    with pytest.raises(ApiError, match="404: Not Found"), ReviewerClient(f"{api.url}/other", api.key) as wrong:
        wrong.read_job("x")


def test_job_is_watched_until_it_is_answered(api: RunningApi, client: ReviewerClient) -> None:
    job_id = api.add_job()
    states = client.watch(job_id)
    assert next(states).status == JobStatus.PENDING
    api.answer(job_id)
    (last,) = states
    assert last == client.read_job(job_id) == client.wait_for_job(job_id)
    assert last.outcome
    assert last.outcome.decision == Decision.PROMOTED


def test_watching_goes_on_after_a_restart_of_the_api_and_says_that_it_waits(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[JobDetail] = []
    with run_api(settings) as first:
        job_id, key, port = first.add_job(), first.key, first.port
        with ReviewerClient(first.url, key) as client:
            watching = threading.Thread(target=lambda: seen.extend(client.watch(job_id)))
            watching.start()
            while not seen:
                time.sleep(0.05)
            first.server.should_exit = True
            first.thread.join()
            wait_until(lambda: "connecting again for 60 s" in caplog.text)
            with run_api(settings, port) as second:
                second.answer(job_id)
                watching.join(20)
    assert [bool(each.outcome) for each in seen] == [False, True]
    assert caplog.text.count("connecting again") == 1


def test_watching_ends_if_the_key_is_revoked(api: RunningApi) -> None:
    key = api.add_key()
    with ReviewerClient(api.url, key) as client:
        states = client.watch(api.add_job())
        next(states)
        with open_session(api.settings) as session:
            revoke_key(session, key.split("_")[1])
        with pytest.raises(ApiError, match="401: The API key was revoked"):
            list(states)


def test_job_that_takes_longer_than_one_waits_raises(api: RunningApi, client: ReviewerClient) -> None:
    with pytest.raises(TimeoutError, match="did not finish within"):
        client.wait_for_job(api.add_job(), timeout_seconds=0.1)


def test_import_that_failed_half_way_goes_on(settings: Settings) -> None:
    records = write_records(60)
    with run_api(settings) as api, ReviewerClient(api.url, api.key) as client:
        reports = client.import_records(FormatName.DOCCANO, records)
        first = next(reports)
        api.server.should_exit = True
        api.thread.join()
        with pytest.raises(httpx.TransportError):
            next(reports)
    with run_api(settings) as api, ReviewerClient(api.url, api.key) as client:
        documents = [each for report in client.import_records(FormatName.DOCCANO, records) for each in report.documents]
    done = len(first.documents)
    assert 0 < done < 60
    states = [each.state for each in documents]
    assert states == [ImportState.UNCHANGED] * done + [ImportState.ADDED] * (60 - done)


def test_batch_that_is_too_large_for_an_installation_is_sent_in_parts(settings: Settings) -> None:
    records = [*write_records(20), json.dumps({"text": "a" * 700}), *write_records(21)[20:]]
    with run_api(settings.model_copy(update={"max_json_bytes": 600})) as api:
        client = ReviewerClient(api.url, api.key)
        documents = [each for report in client.import_records(FormatName.DOCCANO, records) for each in report.documents]
    assert [each.state for each in documents] == [
        *[ImportState.ADDED] * 20, ImportState.REFUSED, ImportState.ADDED,
    ]  # fmt: skip
    assert documents[20].reason == "The body is larger than 600 bytes"


def test_export_is_a_file_that_is_imported(client: ReviewerClient) -> None:
    list(client.import_records(FormatName.DOCCANO, write_records(3)))
    file = io.BytesIO()
    assert client.export(FormatName.CONLL, file) == 0
    records = list(FORMATS[FormatName.CONLL].split(file.getvalue().decode()))
    (report,) = client.import_records(FormatName.CONLL, records)
    assert [each.state for each in report.documents] == [ImportState.UNCHANGED] * 3


def test_client_loads_neither_a_server_nor_what_learns() -> None:
    heavy = "{'fastapi', 'mlflow', 'prefect', 'starlette', 'torch', 'transformers'}"
    script = f"import sys, client.reviewer_client; print(*{heavy} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_job_names_the_version_to_ask_for(client: ReviewerClient, api: RunningApi) -> None:
    jobs = [api.add_job() for _ in range(3)]
    for job_id, decision in zip(jobs, (Decision.PROMOTED, Decision.NOT_PROMOTED), strict=False):
        api.answer(job_id, outcome(decision))
    assert [client.read_job(job_id).live_version for job_id in jobs] == ["1", None, None]
    assert [job.live_version for job in client.watch(jobs[0])] == ["1"]
