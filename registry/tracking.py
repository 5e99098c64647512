"""What MLflow's runs show: parameters, data sets, the loss curve, scores by type, a chart, the champions."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, SourceType

from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from embeddinggemma_feasibility.evaluation import Evaluation
from registry.chart import Taught, draw_chart
from registry.lineage import Lineage, find_commit, get_code_version
from registry.outcome import ModelScores, Outcome

_NOT_IN_A_METRIC = re.compile(r"[^\w.\- :]")  # MLflow permits slashes too, but not all: it reads a name as a path
_CHAMPIONS = "champions"
_ALL_TYPES = "all types/"  # MLflow draws the metrics of each first part in a section, in alphabetical order
_UNSEEN = f"{_ALL_TYPES}unseen_documents"
_MAX_USER = 256  # characters that MLflow stores
_MOST_METRICS = 1000  # that MLflow takes at once


class Promoted(NamedTuple):
    """A version that was promoted: its number, when (milliseconds since 1970), and its scores."""

    version: int
    at: int
    scores: ModelScores


def build_source_tags(user: str) -> dict[str, str]:
    """Return the tags that say in MLflow who started a run, and which code it ran."""
    commit = find_commit()
    return {
        "mlflow.user": user[:_MAX_USER],
        "mlflow.source.name": "contract-feedback",
        "code_version": get_code_version(),
        "mlflow.source.type": SourceType.to_string(SourceType.PROJECT),
    } | ({"mlflow.source.git.commit": commit.removesuffix("-dirty")} if commit else {})


def log_fine_tuning(client: MlflowClient, run_id: str, fine_tuning: FineTuningResult, lineage: Lineage) -> None:
    """Log the parameters, the numbers of training and replay documents, the loss of each step, and the data sets."""
    tagger, now = fine_tuning.model.served, _now()
    params = {
        **tagger.config.model_dump(),
        "encoder": tagger.encoder.name,
        "encoder_sha256": tagger.encoder.sha256,
        "entity_types": ", ".join(tagger.types)[:500],
        "training_documents": len(fine_tuning.learned),
        "replayed_documents": len(lineage.replay),
        "samples": fine_tuning.sample_count,
    }
    metrics = [Metric("training/loss", loss, now, step) for step, loss in enumerate(fine_tuning.losses, 1)]
    metrics.append(Metric("training/seconds", fine_tuning.seconds, now, 0))
    client.log_batch(run_id, metrics, [Param(name, str(value)) for name, value in params.items()])
    annotations = Counter(span.type for data in fine_tuning.learned for span in data.spans)
    taught = _describe_dataset("taught", "training", run_id, lineage.training, annotations)
    replayed = _describe_dataset("replayed", "replay", run_id, lineage.replay, Counter())
    client.log_inputs(run_id, [taught, replayed] if lineage.replay else [taught])


def log_comparison(client: MlflowClient, run_id: str, outcome: Outcome) -> None:
    """Log the challenger's scores beside the champion's."""
    challenger, champion = outcome.challenger, outcome.champion
    if challenger is None:
        return
    metrics = _metrics(challenger.unseen, "unseen/", "unseen/") | _metrics_of_all(challenger)
    if champion:
        metrics |= _metrics(champion.unseen, "champion/", "champion/")
    now = _now()
    client.log_batch(run_id, [Metric(name, value, now, 0) for name, value in metrics.items()])
    client.log_dict(run_id, challenger.model_dump(mode="json"), "scores.json")


def log_chart(client: MlflowClient, run_id: str, outcome: Outcome, taught: Taught) -> None:
    """Log a chart of the loss curve and the scores by type."""
    if outcome.challenger:
        losses = [metric.value for metric in client.get_metric_history(run_id, "training/loss")]
        client.log_figure(run_id, draw_chart(losses, outcome.challenger, outcome.champion, taught), "report.png")


def find_champions_run(client: MlflowClient, experiment_id: str) -> str | None:
    """Return the run with the scores of all promoted versions, None if there is none yet."""
    for run in client.search_runs([experiment_id], f"tags.kind = '{_CHAMPIONS}'", max_results=1):
        return str(run.info.run_id)
    return None


def create_champions_run(client: MlflowClient, experiment_id: str) -> str:
    """Create the run with the scores of all promoted versions."""
    note = (
        "The learning curve: each step is a promoted version, with its scores when it was promoted. "
        "A version that was refused and that a person promoted is added by the next run; going back to an earlier "
        "version adds nothing."
    )
    tags = build_source_tags("contract-feedback") | {"kind": _CHAMPIONS, "mlflow.note.content": note}
    run_id = str(client.create_run(experiment_id, tags=tags, run_name=_CHAMPIONS).info.run_id)
    client.set_terminated(run_id)
    return run_id


def log_champions(client: MlflowClient, run_id: str, promoted: Iterable[Promoted]) -> None:
    """Log the scores of promoted versions by step, the version's number, unless they are logged."""
    logged = {metric.step for metric in client.get_metric_history(run_id, _UNSEEN)}
    metrics = [
        Metric(name, value, each.at, each.version)
        for each in promoted
        if each.version not in logged
        for name, value in (
            _metrics(each.scores.unseen, _ALL_TYPES, "each type/")
            | {f"{_ALL_TYPES}{key}": value for key, value in _metrics_of_all(each.scores).items()}
            | {_UNSEEN: float(each.scores.unseen.document_count)}
        ).items()
    ]
    for first in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run_id, metrics[first : first + _MOST_METRICS])


def _describe_dataset(
    name: str, context: str, run_id: str, lessons: Mapping[str, object], annotations: Counter[str]
) -> DatasetInput:
    """Return a data set of documents by their number and a digest of their ids, which themselves can be deleted.

    The digest covers the jobs that taught the documents, too, so it stands for the same texts and annotations.
    """
    canonical = json.dumps({key: str(value) for key, value in lessons.items()}, sort_keys=True)
    profile = {"num_rows": len(lessons), **({"num_elements": annotations.total()} if annotations else {})}
    columns = [{"type": "string", "name": of_type} for of_type in sorted(annotations)]
    dataset = Dataset(
        name=f"{name} documents",
        digest=hashlib.sha256(canonical.encode()).hexdigest()[:8],
        source_type="contract-feedback",
        source=json.dumps({"uri": f"runs:/{run_id}/lineage.json"}),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _metrics(evaluation: Evaluation, prefix: str, of_type: str) -> dict[str, float]:
    """Return the scores by the names of their metrics, which begin with `prefix`, those of a type with `of_type`."""
    if not evaluation.document_count:
        return {}
    by_type = {f"{of_type}value_f1 {_to_metric(name)}": score.f1 for name, score in evaluation.value_by_type.items()}
    by_type |= {f"{of_type}span_f1 {_to_metric(name)}": score.f1 for name, score in evaluation.span_by_type.items()}
    return {f"{prefix}value_f1": evaluation.value.f1, f"{prefix}span_f1": evaluation.span.f1, **by_type}


def _metrics_of_all(scores: ModelScores) -> dict[str, float]:
    metrics = {}
    if scores.corrections_reproduced is not None:
        metrics["corrections_reproduced"] = scores.corrections_reproduced
    if scores.reliability and scores.reliability.bins:
        metrics["calibration_error"] = scores.reliability.error
    return metrics


def _to_metric(name: str) -> str:
    """Return a type as MLflow permits it in a metric's name; a type that it does not permit gets a hash."""
    permitted = _NOT_IN_A_METRIC.sub("_", name)
    return name if permitted == name else f"{permitted} {hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
