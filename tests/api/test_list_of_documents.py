"""The list of documents: its orders, its filters, and what the model is uncertain of."""

import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.training_config import TrainingConfig
from registry.settings import Settings
from tests.api.conftest import Start
from tests.api.test_encoding import promote_model
from tests.api.test_limits import TEXT, mark, upload


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def list_ids(client: TestClient, **parameters: str) -> list[str]:
    return [item["id"] for item in client.get("/documents", params=parameters).json()["items"]]


def wait_until_read(client: TestClient, document_id: str) -> float:
    until = time.monotonic() + 30
    while (count := client.get(f"/documents/{document_id}").json()["uncertain_values"]) is None:
        assert time.monotonic() < until, "What is uncertain is not stored"
        time.sleep(0.1)
    return float(count)


def test_documents_are_listed_by_review_and_by_name(start: Start) -> None:
    client = start()
    taught, new = upload(client), upload(client, "Bell pays nobody.")
    client.post(f"/documents/{taught}/feedback", json={"annotations": [mark("Bell")]})
    assert client.get(f"/documents/{taught}").json()["review"] == "waiting"
    assert (list_ids(client, review="waiting"), list_ids(client, review="new")) == ([taught], [new])
    assert list_ids(client, search="A.TX") == [new, taught]
    assert list_ids(client, search="b.tx") == []
    assert client.get("/documents", params={"order": "best"}).status_code == 422


def test_extraction_and_upload_tell_how_many_values_are_uncertain_and_the_highest_comes_first(
    start: Start, settings: Settings, tiny_encoder: Encoder, contracts: list[AnnotationData]
) -> None:
    promote_model(settings, tiny_encoder, contracts, TrainingConfig())
    client = start()
    plain, contract = upload(client, "0 0 0"), upload(client, contracts[5].text)
    assert client.get(f"/documents/{plain}").json()["uncertain_values"] is None
    client.get(f"/documents/{plain}/entities")
    assert 0 <= wait_until_read(client, plain) < wait_until_read(client, contract)
    assert list_ids(client, order="uncertain") == [contract, plain]


def test_promotion_has_new_documents_read_again(
    start: Start, settings: Settings, tiny_encoder: Encoder, contracts: list[AnnotationData]
) -> None:
    client = start()
    new, other = upload(client, contracts[5].text), upload(client, contracts[6].text)
    time.sleep(1)
    promote_model(settings, tiny_encoder, contracts, TrainingConfig())
    client.get(f"/documents/{other}/entities")
    assert wait_until_read(client, new) >= 0


def test_types_are_counted_in_approved_annotations_and_their_documents_are_found(start: Start) -> None:
    client = start()
    first, second = upload(client), upload(client, f"{TEXT} Again.")
    for document, marks in (
        (first, [mark("Bell"), mark("Acme Ltd"), mark("pays", "verb", status="draft")]),
        (second, [mark("Bell"), mark("pays", "verb")]),
    ):
        client.post(f"/documents/{document}/feedback", json={"annotations": marks})
    party, verb = ({"type": name, "annotations": n, "documents": d} for name, n, d in (("party", 3, 2), ("verb", 1, 1)))
    assert client.get("/types").json() == [party, verb]
    assert list_ids(client, type="verb") == [second]
