"""A version as an MLflow model: `mlflow.pyfunc.load_model` and `mlflow models` call this module, the model's loader.

Such a model holds no code and no pickle: MLflow imports this module from the installed package.
"""

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import add_to_model
from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema
from mlflow.version import VERSION

from embeddinggemma_feasibility.tagger import Tagger
from registry.cache import hash_files
from registry.errors import InvalidInputError, UnusableModelError
from registry.lineage import get_requirement

_TAGGER, _ENVIRONMENT, _EXAMPLE_FILE = "tagger", "python_env.yaml", "input_example.json"
_SHA256 = "model_sha256"
_EXAMPLE = ["Service agreement between Alfa Ltda. and Beta S.A., signed on 3 March 2026."]
_ENTITY = {
    "type": DataType.string,
    "value": DataType.string,
    "start": DataType.long,
    "end": DataType.long,
    "confidence": DataType.double,
}
_ENTITIES = Array(Object([Property(name, of_type) for name, of_type in _ENTITY.items()]))
_SIGNATURE = ModelSignature(Schema([ColSpec(DataType.string)]), Schema([ColSpec(_ENTITIES)]))


class EntityExtractor:
    """Extracts the entities of texts."""

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    def predict(self, texts: Any) -> list[list[dict[str, Any]]]:
        """Return the entities of each text, in reading order; offsets count characters.

        :param texts: A pandas frame with the texts as its only column: MLflow makes it of what its user passes.
        """
        return [self._extract(text) for text in texts.iloc[:, 0]]

    def _extract(self, text: object) -> list[dict[str, Any]]:
        if not isinstance(text, str):  # MLflow lets null pass for a required string
            raise InvalidInputError("Each text must be a string")
        return [asdict(entity) for entity in self._tagger.extract(text)]


def save_mlflow_model(folder: Path, run_id: str, save_tagger: Callable[[Path], None]) -> Path:
    """Write the model of an MLflow run to a folder, and return the folder in it where `save_tagger` puts the tagger.

    `mlflow.pyfunc.save_model` writes the same, but first compares the requirements with what is installed, in 0.4 s.
    """
    tagger = folder / _TAGGER
    save_tagger(tagger)
    environment = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    (folder / _ENVIRONMENT).write_text(yaml.safe_dump(environment))
    (folder / "requirements.txt").write_text(f"mlflow=={VERSION}\n{get_requirement()}\n")
    (folder / _EXAMPLE_FILE).write_text(json.dumps(_EXAMPLE))
    example = {"artifact_path": _EXAMPLE_FILE, "type": "json_object"}
    model = Model(folder.name, run_id, signature=_SIGNATURE, saved_input_example_info=example)
    checked = {_SHA256: hash_files(tagger)}
    add_to_model(  # type: ignore[no-untyped-call]
        model, __name__, data=_TAGGER, python_env=_ENVIRONMENT, model_config=checked
    )
    model.save(folder / "MLmodel")
    return tagger


def build_model_tag(folder: Path) -> dict[str, str]:
    """Return the tag by which the MLflow UI knows that an artifact of a run is a model."""
    return {"mlflow.log-model.history": json.dumps([Model.load(str(folder)).get_tags_dict()])}


def find_tagger(folder: Path) -> Path:
    """Return the folder of the tagger's files in an MLflow model, or in a version of an earlier release."""
    tagger = folder / _TAGGER
    return tagger if tagger.exists() else folder


def _load_pyfunc(tagger: str, model_config: Mapping[str, str]) -> EntityExtractor:
    """Load a tagger for MLflow; raises UnusableModelError if its files are not those that were saved."""
    if hash_files(Path(tagger)) != model_config[_SHA256]:
        raise UnusableModelError("The model's files were changed after it was saved: load another version")
    return EntityExtractor(Tagger.load(Path(tagger)))
