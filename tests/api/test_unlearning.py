"""Deleting documents and withdrawing what was taught, over HTTP; Prefect does not answer."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.representations import Representation, hash_text
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig
from feedback.claiming import answer_jobs
from registry.database import open_session
from registry.keys import Scope, add_key
from registry.lessons import take_lessons
from registry.settings import Settings
from tests.api.conftest import Start
from tests.api.test_encoding import list_encoded, promote_model, upload, wait_for_encoded
from tests.feedback.jobs import outcome

TEXT = "Acme Ltd pays Bell."
MARKED = {"annotations": [{"type": "party", "value": "Bell", "start": 14, "end": 18}]}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def teach(client: TestClient, settings: Settings, document_id: str) -> str:
    """Send feedback, and answer it as a run does."""
    job_id = client.post(f"/documents/{document_id}/feedback", json=MARKED).json()["job_id"]
    with open_session(settings) as session:
        take_lessons(session, [job_id], "run")
        answer_jobs(session, [job_id], outcome())
    return str(job_id)


def withdraw(client: TestClient, **without: object) -> Any:
    return client.post("/training-runs", json={"without": without})


def test_document_is_described_until_it_is_deleted_and_then_its_deletion_is(start: Start, settings: Settings) -> None:
    client = start()
    document_id = upload(client, TEXT)
    wait_for_encoded(settings)
    teach(client, settings, document_id)
    assert client.get(f"/documents/{document_id}/text").text == TEXT
    assert client.delete(f"/documents/{document_id}").status_code == 204
    cache = Path(settings.cache_folder) / "representations"
    assert [path.name for path in cache.iterdir()] == []
    request = client.get("/jobs", params={"limit": 1}).json()["items"][0]
    assert (request["job_type"], request["status"]) == ("unlearning", "pending")
    for path in ("", "/text", "/content", "/entities", "/annotations", "/history"):
        gone = client.get(f"/documents/{document_id}{path}")
        assert gone.status_code == 410
        assert f"It is not unlearned yet: job {request['job_id']} makes a version without it" in gone.json()["detail"]
    assert client.delete(f"/documents/{document_id}").status_code == 410
    assert client.post("/training-runs", json={"document_ids": [document_id]}).status_code == 410
    assert client.get("/documents/none").status_code == 404
    again = upload(client, TEXT)
    assert again != document_id
    assert client.get(f"/documents/{again}/text").text == TEXT


def test_only_an_administrator_has_something_unlearned(start: Start, settings: Settings) -> None:
    client = start()
    learned, unread = upload(client, TEXT), upload(client, "Bell pays Acme Ltd.")
    teach(client, settings, learned)
    with open_session(settings) as session:
        key = add_key(session, "rui", [Scope.READ, Scope.ANNOTATE, Scope.TRAIN])
    rui = {"Authorization": f"Bearer {key}"}
    assert client.delete(f"/documents/{learned}", headers=rui).status_code == 403
    body = {"without": {"document_ids": [learned]}}
    assert client.post("/training-runs", json=body, headers=rui).status_code == 403
    assert client.delete(f"/documents/{unread}", headers=rui).status_code == 204
    assert client.get(f"/documents/{learned}").status_code == 200
    assert [job["job_type"] for job in client.get("/jobs").json()["items"]] == ["feedback"]


def delete_while_reading(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the first document deleted that is encoded, while that is done; return the list of the answers."""
    represent, answers = Tagger._represent, list[int]()

    def delete_meanwhile(tagger: Tagger, text: str) -> Representation:
        if not answers:
            document = client.get("/documents").json()["items"][-1]
            answers.append(client.delete(f"/documents/{document['id']}").status_code)
        return represent(tagger, text)

    monkeypatch.setattr(Tagger, "_represent", delete_meanwhile)
    return answers


def test_document_deleted_while_it_is_encoded_leaves_nothing_in_the_cache(
    start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = start(), "Bell pays Acme Ltd."
    answers = delete_while_reading(client, monkeypatch)
    upload(client, TEXT)
    upload(client, other)
    until = time.monotonic() + 30
    while hash_text(other) not in (hashes := {name[:32] for name, _ in list_encoded(settings)}):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert (answers, hashes) == ([204], {hash_text(other)})


def test_document_deleted_while_it_is_extracted_leaves_nothing_in_the_cache(
    start: Start,
    settings: Settings,
    tiny_encoder: Encoder,
    contracts: list[AnnotationData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promote_model(settings, tiny_encoder, contracts, TrainingConfig())
    client = start()
    document_id = upload(client, TEXT)
    wait_for_encoded(settings)
    shutil.rmtree(Path(settings.cache_folder) / "representations")
    answers = delete_while_reading(client, monkeypatch)
    assert client.get(f"/documents/{document_id}/entities").status_code == 410
    assert (answers, list_encoded(settings)) == ([204], [])


def test_what_was_taught_is_withdrawn_and_the_same_feedback_teaches_it_again(start: Start, settings: Settings) -> None:
    client = start()
    document_id = upload(client, TEXT)
    job_id = teach(client, settings, document_id)
    assert client.post(f"/documents/{document_id}/feedback", json=MARKED).json()["job_id"] == job_id
    answer = withdraw(client, document_ids=[document_id], reviewers=["ana"], since="2020-01-01T00:00:00Z")
    assert answer.status_code == 202
    assert (answer.json()["job_type"], answer.json()["triggered_by"]) == ("unlearning", "ana")
    assert answer.json()["note"].startswith(
        "Without what was taught of 1 document by ana since 2020-01-01 00:00:00 UTC"
    )
    assert client.get("/documents", params={"state": "learned"}).json()["total"] == 0
    assert withdraw(client, document_ids=[document_id]).status_code == 422
    assert client.post(f"/documents/{document_id}/feedback", json=MARKED).json()["job_id"] != job_id


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"without": {}}, 422, "Give document_ids, reviewers or since"),
        ({"without": {"since": "2026-01-01T00:00:00"}}, 422, "timezone"),
        ({"without": {"since": "0001-01-01T00:00:00+14:00"}}, 422, "Give a time between the years 1 and 9999"),
        ({"without": {"reviewers": ["ana"]}, "document_ids": []}, 422, "not both"),
        ({"without": {"document_ids": ["none"]}}, 404, "There is no document none"),
        ({"without": {"reviewers": ["nobody"]}}, 422, "Nothing that counts was taught by nobody: check the names"),
    ],
)
def test_request_that_withdraws_nothing_says_what_to_do(
    start: Start, body: dict[str, object], status: int, words: str
) -> None:
    client = start()
    answer = client.post("/training-runs", json=body)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    assert client.get("/jobs").json()["total"] == 0
