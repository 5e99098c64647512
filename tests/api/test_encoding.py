"""Uploaded documents are encoded in the background, into the cache that extractions use."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.evaluation import evaluate
from embeddinggemma_feasibility.representations import Representation
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig
from registry.encoding_queue import LONG_TEXT, MAX_WAITING
from registry.lineage import Lineage
from registry.models import ModelRegistry
from registry.outcome import Decision, ModelScores, Outcome
from registry.settings import Settings
from tests.api.conftest import Start


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def upload(client: TestClient, text: str) -> str:
    answer = client.post("/documents", files={"file": ("a.txt", text.encode())})
    assert answer.status_code == 201
    return str(answer.json()["id"])


def list_encoded(settings: Settings) -> list[tuple[str, int]]:
    """Return the name and the inode of each encoded text in the cache."""
    folder = Path(settings.cache_folder) / "representations"
    return [(file.name, file.stat().st_ino) for file in folder.glob("*") if file.is_file()]


def wait_for_encoded(settings: Settings) -> list[tuple[str, int]]:
    until = time.monotonic() + 30
    while not (encoded := list_encoded(settings)):
        assert time.monotonic() < until, "The upload is not encoded"
        time.sleep(0.02)
    return encoded


def promote_model(settings: Settings, encoder: Encoder, contracts: list[AnnotationData], config: TrainingConfig) -> str:
    registry, tuned = ModelRegistry(settings), fine_tune_model(contracts[:3], encoder=encoder, config=config)
    run_id = registry.save_challenger("run", tuned, Lineage(training={}, replay={}))
    scores = ModelScores(score=1.0, held_out=evaluate([], {}))
    version = registry.register(
        run_id, Outcome(decision=Decision.PROMOTED, reason="r", flow_run_id="run", challenger=scores)
    )
    registry.promote(version)
    return version


def test_long_document_is_read_in_the_background_while_others_are_extracted(
    start: Start, settings: Settings, tiny_encoder: Encoder, contracts: list[AnnotationData]
) -> None:
    version = promote_model(settings, tiny_encoder, contracts, TrainingConfig())
    client = start()
    long, short = upload(client, "a" * (LONG_TEXT + 1)), upload(client, "b" * LONG_TEXT)
    first = client.get(f"/documents/{long}/entities")
    assert first.status_code == 503
    assert "100,001 characters is being read in the background" in first.json()["detail"]
    assert first.headers["Retry-After"]
    assert client.get(f"/documents/{short}/entities").json()["model_version"] == version
    until = time.monotonic() + 60
    while client.get(f"/documents/{long}/entities").status_code != 200:
        assert time.monotonic() < until, "The long document is not read"
        time.sleep(0.2)


@pytest.mark.parametrize("config", [TrainingConfig(), TrainingConfig(window_pieces=100)], ids=["default", "other"])
def test_extraction_finds_the_upload_encoded_by_the_served_model(
    start: Start, settings: Settings, tiny_encoder: Encoder, contracts: list[AnnotationData], config: TrainingConfig
) -> None:
    version = promote_model(settings, tiny_encoder, contracts, config)
    client = start()
    document_id = upload(client, contracts[4].text)
    encoded = wait_for_encoded(settings)
    assert client.get(f"/documents/{document_id}/entities").json()["model_version"] == version
    assert list_encoded(settings) == encoded


def test_upload_before_the_first_model_is_encoded_as_that_model_will(
    start: Start, settings: Settings, tiny_encoder: Encoder, contracts: list[AnnotationData]
) -> None:
    client = start()
    document_id = upload(client, contracts[4].text)
    encoded = wait_for_encoded(settings)
    version = promote_model(settings, tiny_encoder, contracts, TrainingConfig())
    assert client.get(f"/documents/{document_id}/entities").json()["model_version"] == version
    assert list_encoded(settings) == encoded


def test_same_bytes_again_are_encoded_only_if_the_cache_has_lost_them(start: Start, settings: Settings) -> None:
    client = start()
    upload(client, "Acme Ltd pays Bell.")
    encoded = wait_for_encoded(settings)
    upload(client, "Acme Ltd pays Bell.")
    upload(client, "Bell pays Acme Ltd.")  # encoded last
    until = time.monotonic() + 30
    while len(list_encoded(settings)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(list_encoded(settings)) == 2
    assert set(encoded) < set(list_encoded(settings))
    shutil.rmtree(Path(settings.cache_folder) / "representations")
    upload(client, "Acme Ltd pays Bell.")
    assert [name for name, _ in wait_for_encoded(settings)] == [name for name, _ in encoded]


def test_upload_that_cannot_be_encoded_is_stored_and_later_ones_are_encoded(
    start: Start, settings: Settings, tiny_encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = start(encoder=str(tmp_path / "encoder"))
    document_id = upload(client, "Acme Ltd pays Bell.")
    until = time.monotonic() + 30
    while "left to its first extraction" not in caplog.text and time.monotonic() < until:
        time.sleep(0.02)
    assert client.get(f"/documents/{document_id}/text").text == "Acme Ltd pays Bell."
    assert not list_encoded(settings)
    shutil.copytree(tiny_encoder.name, tmp_path / "encoder")
    upload(client, "Bell pays Acme Ltd.")
    assert len(wait_for_encoded(settings)) == 1


def test_upload_is_stored_while_mlflow_does_not_answer(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    upload(start(mlflow_tracking_uri="http://127.0.0.1:9"), "Acme Ltd pays Bell.")
    expected = "left to its first extraction: MLflow does not answer"
    until = time.monotonic() + 30
    while expected not in caplog.text and time.monotonic() < until:
        time.sleep(0.02)
    assert expected in caplog.text


def test_long_document_that_a_reader_waits_for_is_read_next_however_many_wait(
    start: Start,
    settings: Settings,
    tiny_encoder: Encoder,
    contracts: list[AnnotationData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version, encode = promote_model(settings, tiny_encoder, contracts, TrainingConfig()), Tagger._represent

    def encode_slowly(tagger: Tagger, text: str) -> Representation:
        time.sleep(0.5)
        return encode(tagger, text)

    monkeypatch.setattr(Tagger, "_represent", encode_slowly)
    client = start()
    long = upload(client, "a" * (LONG_TEXT + 1))
    for number in range(MAX_WAITING + 1):
        upload(client, f"Bell pays {number}.")
    client.get(f"/documents/{long}/entities")
    until = time.monotonic() + 30
    while (answer := client.get(f"/documents/{long}/entities")).status_code == 503:
        assert time.monotonic() < until, "The others are read first"
        time.sleep(0.2)
    assert answer.json()["model_version"] == version


def test_encoding_has_a_lower_priority_than_requests(start: Start) -> None:
    start()
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "encoding")
    assert os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) > os.getpriority(os.PRIO_PROCESS, 0)


def test_application_with_a_full_queue_takes_uploads_and_stops_promptly(
    start: Start, settings: Settings, contracts: list[AnnotationData], caplog: pytest.LogCaptureFixture
) -> None:
    client = start(encoder="packaged")
    text = "\n".join(data.text for data in contracts)
    for number in range(MAX_WAITING + 10):
        upload(client, f"{text} {text} {number}")
    assert f"{MAX_WAITING} texts wait to be encoded" in caplog.text
    started = time.monotonic()
    client.__exit__(None, None, None)
    assert time.monotonic() - started < 10
    for thread in threading.enumerate():
        if thread.name == "encoding":
            thread.join(20)
    assert "encoding" not in {thread.name for thread in threading.enumerate()}
    assert len(list_encoded(settings)) < MAX_WAITING
