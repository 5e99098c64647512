"""Webhooks over the API: registered, listed, told, deleted."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from registry.models import ModelRegistry
from registry.settings import Settings
from registry.webhooks import MOST_WEBHOOKS
from tests.api.conftest import Start
from tests.receiver import receive
from tests.registry.test_models import register as register_version

PUBLIC = "https://93.184.215.14/events"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def register(client: TestClient, url: str, *event_types: str) -> dict[str, Any]:
    answer = client.post("/webhooks", json={"url": url, "event_types": event_types or ["model.promoted"]})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_secret_of_a_webhook_is_shown_once_and_never_recorded(start: Start) -> None:
    client = start()
    created = register(client, PUBLIC, "model.promoted", "feedback.live", "model.promoted")
    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    assert client.get("/webhooks").json() == [created]
    assert (created["url"], created["event_types"]) == (PUBLIC, ["feedback.live", "model.promoted"])
    assert client.delete(f"/webhooks/{created['id']}").status_code == 204
    assert client.get("/webhooks").json() == []
    deleted, added = client.get("/audit").json()["items"]
    assert [(entry["action"], entry["entity"], entry["entity_id"]) for entry in (added, deleted)] == [
        ("created", "webhook", created["id"]), ("deleted", "webhook", created["id"]),
    ]  # fmt: skip
    assert deleted["before"]["url"] == PUBLIC
    assert secret not in client.get("/audit").text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/", "http://localhost/", "http://LOCALHOST/", "http://[::1]/", "http://2130706433/",
        "http://0x7f.1/", "http://[::ffff:10.0.0.1]/", "http://169.254.169.254/latest/", "https://10.0.0.1/",
        "http://127.0.0.1\u3002/",
    ],
)  # fmt: skip
def test_webhook_to_a_private_address_is_refused(start: Start, url: str) -> None:
    answer = start().post("/webhooks", json={"url": url, "event_types": ["model.promoted"]})
    assert answer.status_code == 422
    assert "has a private address" in answer.json()["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"url": "ftp://93.184.215.14/"}, {"url": "https://ana:secret@93.184.215.14/"}, {"url": "https://"},
        {"url": PUBLIC + "x" * 3_000}, {"url": "https://ana@93.184.215.14/"}, {"event_types": []},
        {"event_types": ["model.deleted"]}, {"secret": "whsec_mine"},
    ],
)  # fmt: skip
def test_webhook_that_makes_no_sense_is_refused(start: Start, change: dict[str, Any]) -> None:
    answer = start().post("/webhooks", json={"url": PUBLIC, "event_types": ["model.promoted"], **change})
    assert answer.status_code == 422
    assert "secret@" not in answer.text


def test_webhook_above_the_maximum_is_refused(start: Start) -> None:
    client = start()
    for _ in range(MOST_WEBHOOKS):
        register(client, PUBLIC)
    answer = client.post("/webhooks", json={"url": PUBLIC, "event_types": ["model.promoted"]})
    assert (answer.status_code, answer.json()["detail"]) == (409, "There are 10 webhooks already: delete one first")


def test_unknown_webhook_is_not_found(start: Start) -> None:
    client = start()
    assert client.get("/webhooks/none/deliveries").status_code == 404
    assert client.delete("/webhooks/none").status_code == 404


def test_promotion_and_rollback_over_the_api_are_sent_and_logged(
    start: Start, settings: Settings, tiny_encoder: Encoder, contracts: list[AnnotationData]
) -> None:
    registry, tuned = ModelRegistry(settings), fine_tune_model(contracts[:1], encoder=tiny_encoder)
    first, second = (register_version(registry, tuned, contracts[:1], run) for run in ("run-1", "run-2"))
    registry.promote(second)
    client = start(webhook_private_addresses=True)
    with receive() as receiver:
        webhook = register(client, receiver.url, "model.promoted", "model.rolled_back")
        for version in (first, second, second):
            answer = client.post(f"/models/{version}/promote", json={"reason": "Acme Ltd"})
            assert answer.status_code == 200
        receiver.wait_for(2)
        events = receiver.verify(webhook["secret"])
    assert [(event["type"], event["data"]["version"], event["data"]["previous_version"]) for event in events] == [
        ("model.rolled_back", first, second), ("model.promoted", second, first),
    ]  # fmt: skip
    assert "Acme" not in str(events)
    page = client.get(f"/webhooks/{webhook['id']}/deliveries?limit=1").json()
    assert (page["total"], len(page["items"]), page["items"][0]["event_type"]) == (2, 1, "model.promoted")
    assert client.delete(f"/webhooks/{webhook['id']}").status_code == 204
    assert client.get(f"/webhooks/{webhook['id']}/deliveries").status_code == 404
