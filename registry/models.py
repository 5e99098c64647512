"""Models in MLflow: one run for each fine-tuning, one version for each challenger; the alias `champion` is served.

The files of a tagger are artifacts of its run before the version is created, so every version is complete.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import requests
from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.trained_model import TrainedModel
from registry.cache import build_model_cache, copy_model, hash_files
from registry.chart import Taught
from registry.errors import (
    NoChampionError,
    NotFoundError,
    OvertakenError,
    UnavailableError,
    UnusableModelError,
    build_outage_error,
    is_outage_status,
)
from registry.lineage import Lineage
from registry.mlflow_model import build_model_tag, find_tagger, save_mlflow_model
from registry.model_version import ModelVersion
from registry.outcome import Decision, ModelScores, Outcome
from registry.settings import Settings
from registry.tracking import (
    Promoted,
    build_source_tags,
    create_champions_run,
    find_champions_run,
    log_champions,
    log_chart,
    log_comparison,
    log_fine_tuning,
)

_logger = logging.getLogger(__name__)
CHAMPION, CHALLENGER = "champion", "challenger"
_SERVED, _TRAINING = "model", "training"  # folders of an MLflow run
_SHA256 = {_SERVED: "model_sha256", _TRAINING: "training_sha256"}  # tags with the hashes of their files
_SNAPSHOT, _SCORES, _PROMOTED_AT = "candidate_snapshot", "scores", "promoted_at"  # tags, too
_WITHDRAWALS = "candidate_withdrawals"  # a tag
_DECISION, _FLOW_RUN, _TRAINING_DOCUMENTS = "decision", "flow_run_id", "training_documents"  # tags of a version
_LINEAGE, _NO_PARENT = "lineage.json", "none"
_DESCRIPTION = (
    "Finds the entities of contracts; reviewers decide their types. "
    f"Each feedback makes a version, and its description says why it was promoted or not; `@{CHAMPION}` is the "
    f"version that the API serves, `@{CHALLENGER}` the newest. "
    "Load one with `mlflow.pyfunc.load_model`: `predict` takes texts, and returns for each the list of its entities."
)
_EARLIER_DESCRIPTION = "Finds the entities of contracts"
_WORKFLOW = "machine_learning"  # MLflow's default is "genai"
_US = "contract-feedback"  # the user of a run that nobody started
_RECENTLY_PROMOTED, _ALL_PROMOTED = 20, 10_000  # versions
_PAGE = 100  # runs or versions that are asked for at once
_MAX_TAG = 100_000  # characters that MLflow stores in a tag of a version
_MISSING = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}


@contextmanager
def _needs_mlflow() -> Iterator[None]:
    """Raise UnavailableError if MLflow does not answer, fails or refuses our password; any other error is a bug."""
    try:
        yield
    except (MlflowException, requests.RequestException) as error:  # artifacts raise the latter
        if not _is_outage(error):
            raise
        raise build_outage_error("MLflow", _get_status(error)) from error


def _is_outage(error: MlflowException | requests.RequestException) -> bool:
    status = _get_status(error)
    return status is None or is_outage_status(status)


def _get_status(error: MlflowException | requests.RequestException) -> int | None:
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    return None if error.response is None else error.response.status_code


class Champion(NamedTuple):
    """The champion and the MLflow run that made it: another MLflow may have another version of the same number."""

    version: str
    mlflow_run_id: str


class ModelRegistry:
    """The registered model of the settings; each method raises UnavailableError if MLflow does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._name = settings, settings.model_name
        self._client = MlflowClient(settings.mlflow_tracking_uri, settings.mlflow_tracking_uri)
        self._cache = build_model_cache(settings)

    def find_champion(self) -> str | None:
        """Return the champion, None before the first; raises NoChampionError if it has lost its alias."""
        champion = self.find_champion_run()
        return champion.version if champion else None

    @_needs_mlflow()
    def find_champion_run(self) -> Champion | None:
        """Return the champion with its MLflow run as `find_champion` does."""
        champion = self._find_alias()
        if champion is None and self._search(f"tags.{_PROMOTED_AT} != ''"):
            champion = self._find_alias()  # the first may have been promoted between the two requests
            if champion is None:
                raise NoChampionError(
                    f"No version has the alias {CHAMPION!r} in MLflow: promote one with "
                    "POST /models/{version}/promote"
                )
        return champion

    @_needs_mlflow()
    def find_alias(self) -> str | None:
        """Return the version with the alias of the champion, None if there is none."""
        champion = self._find_alias()
        return champion.version if champion else None

    @_needs_mlflow()
    def has_registered(self, version: str, run_id: str) -> bool:
        """Tell whether a version was made by this run, as far as this MLflow knows; a person may have deleted it."""
        try:
            return str(self._client.get_model_version(self._name, version).run_id) == run_id
        except MlflowException as error:
            _check_missing(error)
        try:
            return _DECISION in self._client.get_run(run_id).data.tags
        except MlflowException as error:
            _check_missing(error)
            return False

    @_needs_mlflow()
    def load_tagger(self, version: str) -> Tagger:
        """Load the tagger that a version serves, from this machine's copy or from MLflow.

        Raises NotFoundError, and UnusableModelError if its files are missing, not those that were registered, or of
        another encoder.
        """
        found = self._get(version)
        with _is_loadable(f"Version {version}"), self._open_folder(str(found.run_id), _SERVED, found.tags) as served:
            return Tagger.load(served, self._settings.encoder)

    @_needs_mlflow()
    def load_model(self, version: str) -> TrainedModel:
        """Load all of a version, to train it further; raises as `load_tagger` does."""
        found = self._get(version)
        return self._load_model(str(found.run_id), found.tags)

    @_needs_mlflow()
    def get_version(self, version: str) -> ModelVersion:
        """Return a version; raises NotFoundError."""
        found = self._get(version)
        if not _is_ours(found):
            raise NotFoundError(f"Version {version} was registered by another tool")
        return self._describe(found, self.find_alias())

    @_needs_mlflow()
    def get_lineage(self, version: str) -> Lineage:
        """Return what a version was made from; raises NotFoundError."""
        return self._read_lineage(str(self._get(version).run_id))

    @_needs_mlflow()
    def list_lessons(self, run_id: str) -> list[str]:
        """Return the jobs whose lessons the model of an MLflow run has learned."""
        jobs = self._read_lineage(run_id).training.values()
        return sorted({job_id for job_id in jobs if isinstance(job_id, str)})

    @_needs_mlflow()
    def list_versions(self, limit: int, before: str | None = None) -> list[ModelVersion]:
        """Return the newest versions, or those before a version, newest first; those of other tools are left out."""
        condition = f"tags.{_SHA256[_SERVED]} != ''"
        if before:
            condition += f" and version_number < {before}"
        champion = self.find_alias()
        return [self._describe(version, champion) for version in self._search(condition, limit)]

    @_needs_mlflow()
    def promote(self, version: str) -> None:
        """Make a version the champion, atomically; raises NotFoundError."""
        found = self._get(version)
        self._client.set_registered_model_alias(self._name, CHAMPION, found.version)
        # After the alias: `find_champion_run` takes a tag without an alias for an alias that was lost.
        self._client.set_model_version_tag(self._name, found.version, _PROMOTED_AT, datetime.now(UTC).isoformat())

    def promote_after(self, version: str, champion: str | None) -> None:
        """Make a version the champion if it is already, or if that is still `champion`; raises OvertakenError."""
        current = self.find_alias()
        if current not in (version, champion):
            raise OvertakenError(f"Version {current} was promoted meanwhile: the next run learns from that")
        self.promote(version)

    @_needs_mlflow()
    def retire_champion(self) -> int:
        """Serve no version, as before the first, and return the number of the next; a retry does nothing more."""
        while promoted := self._search(f"tags.{_PROMOTED_AT} != ''", _PAGE):
            for version in promoted:
                self._client.delete_model_version_tag(self._name, version.version, _PROMOTED_AT)
        if self.find_alias():
            self._client.delete_registered_model_alias(self._name, CHAMPION)
        newest = self._search("version_number > 0")
        return int(newest[0].version) + 1 if newest else 1

    @_needs_mlflow()
    def forget_documents(self, document_ids: Collection[str]) -> int:
        """Remove documents from the lineage of all runs, and return in how many runs one of them was."""
        changed, page = 0, None
        while True:
            runs = self._client.search_runs([self._experiment_id], max_results=_PAGE, page_token=page)
            changed += sum(self._forget_in(str(run.info.run_id), document_ids) for run in runs)
            if not (page := runs.token):
                return changed

    @_needs_mlflow()
    def save_challenger(
        self, flow_run_id: str, fine_tuning: FineTuningResult, lineage: Lineage, user: str = _US
    ) -> str:
        """Store a fine-tuned model, with its parameters and lineage, in an MLflow run; return the id of the run."""
        tags = {"flow_run_id": flow_run_id, "parent_version": lineage.parent_version or _NO_PARENT}
        started = int((time.time() - fine_tuning.seconds) * 1000)
        name = f"challenger {flow_run_id[:8]}"
        run = self._client.create_run(self._experiment_id, started, tags | build_source_tags(user), name)
        run_id = str(run.info.run_id)
        log_fine_tuning(self._client, run_id, fine_tuning, lineage)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / _LINEAGE).write_text(lineage.complete(fine_tuning).model_dump_json(indent=2))
            training = Path(folder) / _TRAINING
            served = save_mlflow_model(
                Path(folder) / _SERVED, run_id, lambda new: fine_tuning.model.save(new, training)
            )
            self._client.log_artifacts(run_id, folder)
            tags = {_SHA256[_SERVED]: self._cache_folder(served), _SHA256[_TRAINING]: self._cache_folder(training)}
            tags |= build_model_tag(Path(folder) / _SERVED)
        self._set_tags(run_id, tags | {"trained": "yes"})
        return run_id

    @_needs_mlflow()
    def find_challenger(self, flow_run_id: str, parent_version: str | None) -> tuple[str, TrainedModel] | None:
        """Return the model that a flow run has trained from this version already, with the id of its MLflow run."""
        query = f"tags.flow_run_id = '{flow_run_id}' and tags.trained = 'yes'"
        query += f" and tags.parent_version = '{parent_version or _NO_PARENT}'"
        for run in self._client.search_runs([self._experiment_id], query):
            return str(run.info.run_id), self._load_model(str(run.info.run_id), run.data.tags)
        return None

    @_needs_mlflow()
    def save_candidate(
        self,
        flow_run_id: str,
        fitted: FineTuningResult,
        lineage: Lineage,
        snapshot: int,
        description: str,
        withdrawals: int = 0,
    ) -> str:
        """Store a consolidated model, with what was known when its documents were read, and return its MLflow run."""
        run_id = self.save_challenger(flow_run_id, fitted, lineage)
        tags = {"mlflow.runName": f"consolidation {flow_run_id[:8]}", "mlflow.note.content": description}
        self._set_tags(run_id, tags | {_WITHDRAWALS: str(withdrawals), _SNAPSHOT: str(snapshot)})
        self._client.set_terminated(run_id)
        return run_id

    @_needs_mlflow()
    def find_candidate(self, flow_run_id: str) -> tuple[str, int, str, int] | None:
        """Return what a flow run has saved: the id of its MLflow run, and what `save_candidate` was given."""
        for run in self._client.search_runs([self._experiment_id], f"tags.flow_run_id = '{flow_run_id}'"):
            tags = run.data.tags
            if _SNAPSHOT in tags:
                description, withdrawals = tags["mlflow.note.content"], int(tags.get(_WITHDRAWALS, 0))
                return str(run.info.run_id), int(tags[_SNAPSHOT]), description, withdrawals
        return None

    @_needs_mlflow()
    def load_candidate(self, run_id: str) -> TrainedModel:
        """Load the model that `save_candidate` stored in an MLflow run."""
        return self._load_model(run_id, self._client.get_run(run_id).data.tags)

    @_needs_mlflow()
    def register(self, run_id: str, outcome: Outcome, above: int = 0) -> str:
        """Register the model of an MLflow run with its comparison, unless it is registered; return the version.

        Its number is greater than `above`: if MLflow has lost versions, it would use their numbers again.
        """
        for existing in self._search(f"run_id = '{run_id}' and version_number > {above}"):
            return str(existing.version)
        log_comparison(self._client, run_id, outcome)
        self._ensure_registered_model()
        run = self._client.get_run(run_id)
        tags = run.data.tags
        promoted = outcome.decision == Decision.PROMOTED
        decision = "promoted" if promoted else "not promoted"
        of_version = {
            _DECISION: decision,
            _FLOW_RUN: outcome.flow_run_id,
            _TRAINING_DOCUMENTS: str(len(outcome.training_documents)),
        }
        of_version |= {name: tags[name] for name in ("parent_version", *_SHA256.values())}
        version = self._create_version(run, of_version | _build_scores_tag(outcome.challenger), outcome.reason, above)
        self._client.set_registered_model_alias(self._name, CHALLENGER, version)
        count = len(outcome.training_documents)
        learned = "consolidation" if _SNAPSHOT in tags else f"trained on {count} document{'s' * (count != 1)}"
        name = f"v{version} · {learned}"
        shown = {"mlflow.runName": name, "mlflow.note.content": outcome.reason, "decision": decision}
        self._set_tags(run_id, shown)
        self._client.set_terminated(run_id)
        return version

    @_needs_mlflow()
    def log_chart(self, run_id: str, outcome: Outcome, taught: Taught) -> None:
        """Add the chart of a run; it takes time, so do it after the promotion."""
        log_chart(self._client, run_id, outcome, taught)

    @_needs_mlflow()
    def log_champions(self) -> None:
        """Add each promoted version to the learning curve in MLflow unless it is there: all of them the first time.

        Later only the newest are looked at. Do it after the promotion, too.
        """
        run_id, count = find_champions_run(self._client, self._experiment_id), _RECENTLY_PROMOTED
        if run_id is None:
            run_id, count = create_champions_run(self._client, self._experiment_id), _ALL_PROMOTED
        versions = self._search(f"tags.{_PROMOTED_AT} != ''", count)
        log_champions(self._client, run_id, [self._describe_promoted(version) for version in versions])

    @_needs_mlflow()
    def get_runs_url(self) -> str:
        """Return the address of a run in the MLflow UI, with {} for its id, in the view for training."""
        return f"{self._settings.mlflow_ui_url}/#/experiments/{self._experiment_id}/runs/{{}}?workflowType={_WORKFLOW}"

    def get_run_url(self, run_id: str) -> str:
        """Return the address of a run in the MLflow UI."""
        return self.get_runs_url().format(run_id)

    @cached_property
    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment:
            return str(experiment.experiment_id)
        view = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(self._name, tags=view))

    def _find_alias(self) -> Champion | None:
        try:
            found = self._client.get_model_version_by_alias(self._name, CHAMPION)
        except MlflowException as error:
            _check_missing(error)
            return None
        return Champion(str(found.version), str(found.run_id))

    def _search(self, condition: str, limit: int = 1) -> list[MlflowVersion]:
        """Return the newest versions that meet a condition, newest first."""
        query = f"name = '{self._name}' and {condition}"
        return list(self._client.search_model_versions(query, limit, ["version_number DESC"]))

    def _create_version(self, run: Run, tags: dict[str, str], description: str, above: int) -> str:
        """Create a version of an MLflow run: MLflow uses no number twice, also if it is deleted."""
        source = f"{run.info.artifact_uri}/{_SERVED}"  # MLflow's page of a version reads no source of the form runs:/
        while True:
            created = self._client.create_model_version(self._name, source, run.info.run_id, tags, None, description)
            if int(created.version) > above:
                return str(created.version)
            self._client.delete_model_version(self._name, created.version)

    def _ensure_registered_model(self) -> None:
        try:
            found = self._client.get_registered_model(self._name)
        except MlflowException as error:
            _check_missing(error)
            self._client.create_registered_model(self._name, description=_DESCRIPTION)
        else:
            if found.description == _EARLIER_DESCRIPTION:
                self._client.update_registered_model(self._name, _DESCRIPTION)

    def _get(self, version: str) -> MlflowVersion:
        try:
            return self._client.get_model_version(self._name, version)
        except MlflowException as error:
            _check_missing(error)
            raise NotFoundError(f"There is no model version {version}") from error

    def _forget_in(self, run_id: str, document_ids: Collection[str]) -> bool:
        """Remove documents from the lineage of a run, and tell whether it named one; a run may have none yet."""
        if not any(file.path == _LINEAGE for file in self._client.list_artifacts(run_id)):
            return False
        with tempfile.TemporaryDirectory() as folder:
            lineage = json.loads(Path(self._client.download_artifacts(run_id, _LINEAGE, folder)).read_text())
        by_document = {part: of for part, of in lineage.items() if isinstance(of, dict)}
        kept = lineage | {
            part: {name: of[name] for name in of if name not in document_ids} for part, of in by_document.items()
        }
        if kept == lineage:
            return False
        self._client.log_dict(run_id, kept, _LINEAGE)
        return True

    def _cache_folder(self, folder: Path) -> str:
        """Cache a folder, and return the hash of its files."""
        sha256 = hash_files(folder)
        self._cache.add(sha256, lambda new: shutil.copytree(folder, new))
        return sha256

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _load_model(self, run_id: str, tags: Mapping[str, str]) -> TrainedModel:
        model = f"The model of MLflow run {run_id}"
        with _is_loadable(model), self._open_folder(run_id, _SERVED, tags) as served:
            if _SHA256[_TRAINING] not in tags:  # a version of an earlier release
                return TrainedModel.load(served, None, self._settings.encoder)
            with self._open_folder(run_id, _TRAINING, tags) as training:
                return TrainedModel.load(served, training, self._settings.encoder)

    @contextmanager
    def _open_folder(self, run_id: str, name: str, tags: Mapping[str, str]) -> Iterator[Path]:
        """Provide a temporary copy of a run's folder, from the cache or from MLflow."""
        sha256 = tags.get(_SHA256[name], "")
        with tempfile.TemporaryDirectory() as folder:
            path = self._cache.load(sha256, lambda cached: copy_model(cached, Path(folder) / "cached", sha256))
            if path is None:
                path = find_tagger(Path(self._client.download_artifacts(run_id, name, folder)))
                if hash_files(path) != sha256:
                    raise ValueError("its files are not those that were registered")
                downloaded = path
                self._cache.add(sha256, lambda new: shutil.copytree(downloaded, new))
            yield path

    def _describe(self, found: MlflowVersion, champion: str | None) -> ModelVersion:
        run_id = str(found.run_id)
        parent = found.tags["parent_version"]
        scores = found.tags.get(_SCORES) or self._read_scores(run_id)
        decision, promoted_at, count = map(found.tags.get, (_DECISION, _PROMOTED_AT, _TRAINING_DOCUMENTS))
        return ModelVersion(
            version=str(found.version),
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            is_champion=str(found.version) == champion,
            decision=Decision(decision.replace(" ", "_")) if decision else None,
            promoted_at=datetime.fromisoformat(promoted_at) if promoted_at else None,
            training_documents=int(count) if count else None,
            flow_run_id=found.tags.get(_FLOW_RUN),
            parent_version=None if parent == _NO_PARENT else parent,
            reason=found.description or "",
            scores=ModelScores(**{**json.loads(scores), "version": str(found.version)}),
            mlflow_run_id=run_id,
            mlflow_run=self.get_run_url(run_id),
        )

    def _describe_promoted(self, found: MlflowVersion) -> Promoted:
        at = datetime.fromisoformat(found.tags[_PROMOTED_AT])
        return Promoted(int(found.version), int(at.timestamp() * 1000), self._describe(found, None).scores)

    def _read_lineage(self, run_id: str) -> Lineage:
        with tempfile.TemporaryDirectory() as folder:
            path = self._client.download_artifacts(run_id, _LINEAGE, folder)
            return Lineage.model_validate_json(Path(path).read_text())

    def _read_scores(self, run_id: str) -> str:
        """Return the JSON of the scores of a version that has no tag with them, which is slower."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, "scores.json", folder)).read_text()


def _is_ours(version: MlflowVersion) -> bool:
    return _SHA256[_SERVED] in version.tags


def _build_scores_tag(challenger: ModelScores | None) -> dict[str, str]:
    scores = challenger.model_dump_json() if challenger else ""
    return {_SCORES: scores} if 0 < len(scores) <= _MAX_TAG else {}


@contextmanager
def _is_loadable(model: str) -> Iterator[None]:
    """Raise UnusableModelError, and log the cause, if a model cannot be read from MLflow or from its files."""
    try:
        yield
    except UnavailableError:
        raise
    except Exception as error:
        if isinstance(error, MlflowException | requests.RequestException) and _is_outage(error):
            raise
        _logger.warning("%s cannot be loaded", model, exc_info=True)
        raise UnusableModelError(f"{model} cannot be loaded ({error}): promote another version") from error


def _check_missing(error: MlflowException) -> None:
    """Raise the error unless it says that something does not exist."""
    if error.error_code not in _MISSING:
        raise error
