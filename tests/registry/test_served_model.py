"""Which model serves when MLflow, or the champion, is not what it should be; with a real MLflow store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from registry.errors import UnavailableError
from registry.models import ModelRegistry
from registry.served_model import ServedModel
from registry.settings import Settings
from tests.registry.test_models import database_url, register

__all__ = ["database_url"]  # a fixture

Register = Callable[[], str]


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def register_version(registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData]) -> Register:
    count = iter(range(10))
    return lambda: register(registry, tuned, contracts, f"run-{next(count)}")


def change_files(folder: Path, run_id: str) -> None:
    for file in folder.rglob(f"{run_id}/artifacts/model/tagger/tagger.json"):
        file.write_bytes(file.read_bytes() + b" ")


def delete_cache(settings: Settings) -> None:
    for file in Path(settings.cache_folder).rglob("tagger.json"):
        file.unlink()


def test_last_good_version_serves_and_says_so_if_the_champion_is_broken(
    registry: ModelRegistry, register_version: Register, settings: Settings, tmp_path: Path
) -> None:
    clock = Clock()
    served = ServedModel(registry, clock)
    assert served.get() is None
    good, broken = register_version(), register_version()
    registry.promote(good)
    first = served.get()
    assert first
    assert (first.version, first.warning) == (good, None)
    change_files(tmp_path, registry.get_version(broken).mlflow_run_id)
    delete_cache(settings)
    registry.promote(broken)
    after = served.get()
    assert after
    assert after.version == good
    assert after.warning
    assert f"Version {broken} cannot be loaded" in after.warning
    assert after.warning.endswith(f"Version {good}, which was loaded before, serves.")
    registry.promote(good)
    assert served.get() == after, "MLflow is not asked again before the pause is over"
    clock.seconds = 5
    assert served.get() == first


def test_change_by_the_api_ends_the_pause(
    registry: ModelRegistry, register_version: Register, settings: Settings
) -> None:
    served, client = ServedModel(registry, Clock()), MlflowClient(settings.mlflow_tracking_uri)
    version = register_version()
    registry.promote(version)
    first = served.get()
    client.delete_registered_model_alias(settings.model_name, "champion")
    after = served.get()
    assert after
    assert after.warning
    assert "promote one" in after.warning
    registry.promote(version)
    served.ask_again()
    assert served.get() == first


def test_nothing_serves_until_the_first_champion_can_be_loaded(
    registry: ModelRegistry, register_version: Register, settings: Settings, tmp_path: Path
) -> None:
    clock = Clock()
    served, version = ServedModel(registry, clock), register_version()
    change_files(tmp_path, registry.get_version(version).mlflow_run_id)
    delete_cache(settings)
    registry.promote(version)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="cannot be loaded"):
            served.get()
    good = register_version()
    registry.promote(good)
    clock.seconds = 5
    found = served.get()
    assert found
    assert found.version == good


def test_request_asks_an_mlflow_that_does_not_answer_once(
    registry: ModelRegistry, register_version: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedModel(registry, Clock())
    registry.promote(register_version())
    served.get()
    asked = []

    def miss() -> str:
        asked.append(True)
        raise UnavailableError("MLflow does not answer")

    monkeypatch.setattr(registry, "find_champion_run", miss)
    found = served.get()
    assert found
    assert found.warning
    assert len(asked) == 1


def test_version_is_found_without_loading_and_is_the_one_that_serves(
    registry: ModelRegistry, register_version: Register, settings: Settings, tmp_path: Path
) -> None:
    served = ServedModel(registry, Clock())
    assert served.find_version() is None
    good, broken = register_version(), register_version()
    registry.promote(good)
    assert (served.find_version(), served.loaded) == (good, None)
    served.get()
    change_files(tmp_path, registry.get_version(broken).mlflow_run_id)
    delete_cache(settings)
    registry.promote(broken)
    served.get()
    assert served.find_version() == good


def test_version_of_another_history_is_loaded_though_it_has_the_same_number(
    settings: Settings, registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData],
    empty_mlflow_store: Path, tmp_path: Path,
) -> None:  # fmt: skip
    served, loaded = ServedModel(registry, Clock()), []
    for flow_run_id in ("before", "after"):
        shutil.copy(empty_mlflow_store, tmp_path / "mlflow.db")
        new = ModelRegistry(settings)
        new.promote(register(new, tuned, contracts, flow_run_id))
        loaded.append(served.get())
    first, second = loaded
    assert first
    assert second
    assert (first.version, second.version) == ("1", "1")
    assert second.tagger is not first.tagger
