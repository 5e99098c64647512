"""The models in MLflow: a run for each fine-tuning, a version for each challenger, the alias `champion` for the served.

A tagger's files are artifacts of its run before the version exists, so no version is ever half-written.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from pydantic import BaseModel, Field

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from embeddinggemma_feasibility.evaluation import ModelScores
from embeddinggemma_feasibility.tagger import Tagger
from registry.cache import build_model_cache, copy_model, hash_files
from registry.errors import NotFoundError, TamperedModelError, UnavailableError
from registry.outcome import Outcome
from registry.settings import Settings
from registry.tracking import log_chart, log_comparison, log_fine_tuning

CHAMPION, CHALLENGER = "champion", "challenger"
_SHA256 = "model_sha256"


class ModelVersion(BaseModel):
    """A registered version of the model."""

    version: str
    created_at: datetime
    is_champion: bool = Field(description="Whether this is the version that is served")
    parent_version: str | None = Field(description="The version its fine-tuning started from")
    reason: str = Field(description="Why it was promoted, or not, when it was made")
    scores: ModelScores
    mlflow_run_id: str
    mlflow_run: str = Field(description="The run in the MLflow UI")


class Lineage(BaseModel):
    """What made a version: the annotations taught and replayed, as offsets by document."""

    taught: dict[str, list[dict[str, Any]]]
    replayed: dict[str, list[dict[str, Any]]]


class ModelRegistry:
    """The settings' registered model; its methods raise UnavailableError or MlflowException where MLflow is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._name = settings, settings.model_name
        self._client = MlflowClient(settings.mlflow_tracking_uri, settings.mlflow_tracking_uri)
        self._cache = build_model_cache(settings)

    def find_champion(self) -> str | None:
        """Return the version that is served."""
        try:
            return str(self._client.get_model_version_by_alias(self._name, CHAMPION).version)
        except MlflowException as error:
            _check_missing(error)
            return None

    def load_tagger(self, version: str) -> Tagger:
        """Load a version's tagger, from this machine or from MLflow.

        Raises NotFoundError, and TamperedModelError if its files are not those that were registered.
        """
        found = self._get(version)
        return self._load_tagger(str(found.run_id), found.tags.get(_SHA256, ""))

    def get_version(self, version: str) -> ModelVersion:
        """Return a version; raises NotFoundError."""
        return self._describe(self._get(version), self.find_champion())

    def get_lineage(self, version: str) -> Lineage:
        """Return what made a version; raises NotFoundError."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._client.download_artifacts(str(self._get(version).run_id), "lineage.json", folder)
            return Lineage.model_validate_json(Path(path).read_text())

    def list_versions(self) -> list[ModelVersion]:
        """Return all versions, newest first."""
        found = self._client.search_model_versions(f"name = '{self._name}'")
        champion = self.find_champion()
        return [self._describe(version, champion) for version in sorted(found, key=lambda v: -int(v.version))]

    def promote(self, version: str) -> None:
        """Make a version the champion, in one step; raises NotFoundError."""
        self._client.set_registered_model_alias(self._name, CHAMPION, self._get(version).version)

    def save_challenger(
        self,
        flow_run_id: str,
        fine_tuning: FineTuningResult,
        taught: Sequence[AnnotationData],
        replayed: Sequence[AnnotationData],
        parent_version: str | None,
    ) -> str:
        """Store a fine-tuned tagger and how it came about in an MLflow run, and return the run's id."""
        tags = {"flow_run_id": flow_run_id, "parent_version": parent_version or "none"}
        started = int((time.time() - fine_tuning.seconds) * 1000)
        run = self._client.create_run(self._experiment_id, started, tags, f"challenger {flow_run_id[:8]}")
        run_id = str(run.info.run_id)
        log_fine_tuning(self._client, run_id, fine_tuning, len(taught), len(replayed))
        lineage = Lineage(taught=_list_spans(taught), replayed=_list_spans(replayed))
        self._client.log_dict(run_id, lineage.model_dump(), "lineage.json")
        with tempfile.TemporaryDirectory() as folder:
            fine_tuning.tagger.save(Path(folder))
            self._client.log_artifacts(run_id, folder, "model")
            sha256 = hash_files(Path(folder))
            self._client.set_tag(run_id, _SHA256, sha256)
            self._cache.add(sha256, lambda new: shutil.copytree(folder, new))
        self._client.set_tag(run_id, "trained", "yes")
        return run_id

    def find_challenger(self, flow_run_id: str) -> tuple[str, Tagger] | None:
        """Return the MLflow run's id and the tagger, if this flow run has trained one already."""
        query = f"tags.flow_run_id = '{flow_run_id}' and tags.trained = 'yes'"
        for run in self._client.search_runs([self._experiment_id], query):
            return str(run.info.run_id), self._load_tagger(str(run.info.run_id), run.data.tags.get(_SHA256, ""))
        return None

    def register(self, run_id: str, outcome: Outcome, challenger: ModelScores) -> str:
        """Make the tagger of an MLflow run a version with its comparison; return the version, or the one it is."""
        for existing in self._client.search_model_versions(f"name = '{self._name}' and run_id = '{run_id}'"):
            return str(existing.version)
        log_comparison(self._client, run_id, challenger, outcome.champion)
        self._ensure_registered_model()
        tags = self._client.get_run(run_id).data.tags
        decision = "promoted" if outcome.promoted else "not promoted"
        created = self._client.create_model_version(
            self._name,
            f"runs:/{run_id}/model",
            run_id,
            tags={"parent_version": tags["parent_version"], _SHA256: tags[_SHA256], "decision": decision},
            description=outcome.reason,
        )
        version = str(created.version)
        self._client.set_registered_model_alias(self._name, CHALLENGER, version)
        taught = len(outcome.taught_documents)
        self._client.set_tag(run_id, "mlflow.runName", f"v{version} · taught {taught} document{'s' * (taught != 1)}")
        self._client.set_tag(run_id, "mlflow.note.content", outcome.reason)
        self._client.set_tag(run_id, "decision", decision)
        self._client.set_terminated(run_id)
        return version

    def log_chart(self, run_id: str, outcome: Outcome) -> None:
        """Show a run in a picture: best when the decision was carried out, since it takes time."""
        if outcome.challenger:
            log_chart(self._client, run_id, outcome.challenger, outcome.champion)

    def run_url(self, run_id: str) -> str:
        """Return the address of a run in the MLflow UI."""
        return f"{self._settings.mlflow_ui_url}/#/experiments/{self._experiment_id}/runs/{run_id}"

    @cached_property
    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment:
            return str(experiment.experiment_id)
        view = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(self._name, tags=view))

    def _ensure_registered_model(self) -> None:
        try:
            self._client.get_registered_model(self._name)
        except MlflowException as error:
            _check_missing(error)
            self._client.create_registered_model(self._name, description="Finds the entities of contracts")

    def _get(self, version: str) -> MlflowVersion:
        try:
            return self._client.get_model_version(self._name, version)
        except MlflowException as error:
            _check_missing(error)
            raise NotFoundError(f"There is no model version {version}") from error

    def _load_tagger(self, run_id: str, sha256: str) -> Tagger:
        with tempfile.TemporaryDirectory() as folder:
            path = self._cache.load(sha256, lambda cached: copy_model(cached, Path(folder) / "cached", sha256))
            if path is None:
                path = Path(self._client.download_artifacts(run_id, "model", folder))
                if hash_files(path) != sha256:
                    raise TamperedModelError(
                        f"The model of MLflow run {run_id} is not the one that was registered: promote another version"
                    )
                self._cache.add(sha256, lambda new: shutil.copytree(path, new))
            return Tagger.load(path, self._settings.encoder)

    def _describe(self, found: MlflowVersion, champion: str | None) -> ModelVersion:
        run_id = str(found.run_id)
        parent = found.tags["parent_version"]
        with tempfile.TemporaryDirectory() as folder:
            scores = Path(self._client.download_artifacts(run_id, "scores.json", folder)).read_text()
        return ModelVersion(
            version=str(found.version),
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            is_champion=str(found.version) == champion,
            parent_version=None if parent == "none" else parent,
            reason=found.description or "",
            scores=ModelScores(**{**json.loads(scores), "version": str(found.version)}),
            mlflow_run_id=run_id,
            mlflow_run=self.run_url(run_id),
        )


def _list_spans(documents: Sequence[AnnotationData]) -> dict[str, list[dict[str, Any]]]:
    return {
        data.document_id: [{"type": span.type, "start": span.start, "end": span.end} for span in data.spans]
        for data in documents
    }


def _check_missing(error: MlflowException) -> None:
    missing = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}
    if error.error_code not in missing:
        raise UnavailableError("MLflow does not answer; try again when GET /system-status shows it alive") from error
