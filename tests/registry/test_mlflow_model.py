"""A registered version as MLflow's own tools load it, without the registry."""

import shutil
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import get_model_info

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from registry.errors import InvalidInputError, UnusableModelError
from registry.models import ModelRegistry
from registry.settings import Settings
from tests.registry.test_models import database_url, register

__all__ = ["database_url"]  # a fixture


@pytest.fixture
def champion(
    registry: ModelRegistry,
    tuned: FineTuningResult,
    contracts: list[AnnotationData],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The URI of a champion."""
    registry.promote(register(registry, tuned, contracts, "run-1"))
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_tracking_uri)
    return f"models:/{settings.model_name}@champion"


def test_pyfunc_model_predicts_what_the_tagger_extracts(
    champion: str, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    first, second = (data.text for data in contracts[:2])
    expected = [
        [
            {
                "type": entity.type,
                "value": entity.value,
                "start": entity.start,
                "end": entity.end,
                "confidence": entity.confidence,
            }
            for entity in tuned.model.served.extract(text)
        ]
        for text in (first, second)
    ]
    model = mlflow.pyfunc.load_model(champion)
    assert all(expected)
    assert model.predict([first, second]) == expected
    assert model.predict(first) == expected[:1]


def test_signature_and_example_say_what_to_pass(champion: str) -> None:
    info = get_model_info(champion)
    assert info.signature.inputs.to_dict() == [{"type": "string", "required": True}]
    (output,) = info.signature.outputs.to_dict()
    assert set(output["items"]["properties"]) == {"type", "value", "start", "end", "confidence"}
    model = mlflow.pyfunc.load_model(champion)
    assert len(model.predict(model.input_example)) == 1


@pytest.mark.parametrize("name", ["tagger.safetensors", "tagger.json"])
def test_pyfunc_model_whose_files_were_changed_is_refused(champion: str, tmp_path: Path, name: str) -> None:
    (file,) = tmp_path.rglob(f"artifacts/model/tagger/{name}")
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(UnusableModelError, match="changed after it was saved"):
        mlflow.pyfunc.load_model(champion)


def test_what_is_no_text_is_refused(champion: str) -> None:
    model = mlflow.pyfunc.load_model(champion)
    with pytest.raises(InvalidInputError, match="must be a string"):
        model.predict([None])
    with pytest.raises(MlflowException, match="int64"):
        model.predict([1])


def test_version_of_an_earlier_release_is_served_without_being_an_mlflow_model(
    champion: str, registry: ModelRegistry, tmp_path: Path, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    (model,) = tmp_path.rglob("artifacts/model")
    tagger = (model / "tagger").rename(model.with_name("tagger"))
    shutil.rmtree(model)
    tagger.rename(model)
    for cached in tmp_path.rglob("cache/models/*/tagger.json"):
        cached.unlink()
    text = contracts[0].text
    assert registry.load_tagger("1").extract(text) == tuned.model.served.extract(text)
