"""Extraction by a version or a newer one: what waits, for how long, and what is answered; with a real MLflow store."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from mlflow import MlflowClient

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from embeddinggemma_feasibility.evaluation import Evaluation
from registry.lineage import Lineage
from registry.models import ModelRegistry
from registry.outcome import Decision, ModelScores, Outcome
from registry.served_model import ServedModel
from registry.settings import Settings
from tests.faults import wait_until
from tests.running_api import RunningApi, run_api

MakeVersion = Callable[..., str]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def registry(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    monkeypatch.chdir(tmp_path)
    return ModelRegistry(settings)


@pytest.fixture
def api(settings: Settings, registry: ModelRegistry) -> Iterator[RunningApi]:
    with run_api(settings) as api:
        yield api


@pytest.fixture
def client(api: RunningApi) -> Iterator[httpx.Client]:
    with api.connect() as client:
        yield client


@pytest.fixture
def entities(client: httpx.Client, contracts: list[AnnotationData]) -> str:
    """The path of the entities of an uploaded contract."""
    answer = client.post("/documents", files={"file": ("a.txt", contracts[0].text.encode())})
    return f"/documents/{answer.json()['id']}/entities"


@pytest.fixture
def make_version(registry: ModelRegistry, tuned: FineTuningResult) -> MakeVersion:
    def make(decision: Decision = Decision.PROMOTED) -> str:
        lineage = Lineage(training={}, replay={}, earlier_count=0, parent_version=None)
        run_id = registry.save_challenger(str(uuid4()), tuned, lineage)
        scores = ModelScores(score=1.0, unseen=Evaluation())
        reason = "Not promoted: it is worse." if decision == Decision.NOT_PROMOTED else "Promoted: it is better."
        return registry.register(
            run_id, Outcome(decision=decision, reason=reason, flow_run_id="run", challenger=scores)
        )

    return make


def test_many_requests_wait_for_a_version_and_hold_up_no_other(
    client: httpx.Client, entities: str, registry: ModelRegistry, make_version: MakeVersion
) -> None:
    version = make_version()
    with ThreadPoolExecutor(30) as threads:
        waiting = [
            threads.submit(client.get, entities, params={"min_version": version, "wait_seconds": 10}) for _ in range(30)
        ]
        time.sleep(0.5)
        started = time.monotonic()
        assert client.get("/documents").status_code == 200
        assert time.monotonic() - started < 3, "30 requests of the same key wait, and a key has 8 shares"
        assert not any(request.done() for request in waiting)
        registry.promote(version)
        assert {request.result().json()["model_version"] for request in waiting} == {version}


def test_version_that_is_not_there_is_waited_for_and_then_refused_with_what_is_served(
    client: httpx.Client, entities: str, registry: ModelRegistry, make_version: MakeVersion
) -> None:
    started = time.monotonic()
    answer = client.get(entities, params={"min_version": 1, "wait_seconds": 0.5})
    assert time.monotonic() - started >= 0.5
    assert answer.status_code == 409
    assert answer.json()["detail"] == "No version is served: version 1 is not there yet, try again"
    registry.promote(make_version())
    answer = client.get(entities, params={"min_version": 2, "wait_seconds": 0})
    assert answer.json()["detail"] == "Version 1 is served: version 2 is not there yet, try again"
    assert client.get(entities, params={"min_version": 1, "wait_seconds": 0}).json()["model_version"] == "1"
    assert client.get(entities, params={"min_version": 0}).status_code == 422


def test_version_that_will_not_serve_is_refused_at_once_with_the_reason(
    client: httpx.Client, entities: str, registry: ModelRegistry, make_version: MakeVersion, settings: Settings
) -> None:
    first, second, third = make_version(), make_version(), make_version(Decision.NOT_PROMOTED)
    for version in (second, first):
        registry.promote(version)
    tag = (settings.model_name, second, "promoted_at", "2026-01-01T00:00:00+00:00")
    MlflowClient(settings.mlflow_tracking_uri).set_model_version_tag(*tag)
    for version, why in (
        (second, "version 2 was promoted, and version 1 is the champion now"),
        (third, "version 3 was not promoted (Not promoted: it is worse)"),
    ):
        started = time.monotonic()
        answer = client.get(entities, params={"min_version": version, "wait_seconds": 30})
        assert (answer.status_code, answer.json()["detail"]) == (409, f"Version 1 is served: {why}")
        assert time.monotonic() - started < 15


def test_new_champion_is_loaded_though_nobody_asks(
    api: RunningApi, registry: ModelRegistry, make_version: MakeVersion
) -> None:
    version = make_version()
    registry.promote(version)
    served: ServedModel = api.app.state.services.served
    wait_until(lambda: served.loaded is not None and served.loaded.version == version, timeout_seconds=20)
