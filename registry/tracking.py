"""What an MLflow run shows: parameters, the loss curve, scores by type, a chart."""

import hashlib
import re
from datetime import UTC, datetime

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from embeddinggemma_feasibility.calibration import Reliability
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from embeddinggemma_feasibility.evaluation import Evaluation
from registry.outcome import ModelScores, Outcome

_NOT_IN_A_METRIC = re.compile(r"[^\w.\- :]")  # MLflow permits slashes too, but not all: it reads a name as a path
_MAX_LABEL = 30  # characters of a type in the chart


def log_fine_tuning(client: MlflowClient, run_id: str, fine_tuning: FineTuningResult, replay: int) -> None:
    """Log the parameters, the numbers of training and replay documents, and the loss of each step."""
    tagger, now = fine_tuning.model.served, _now()
    params = {
        **tagger.config.model_dump(),
        "encoder": tagger.encoder.name,
        "encoder_sha256": tagger.encoder.sha256,
        "entity_types": ", ".join(tagger.types)[:500],
        "training_documents": len(fine_tuning.learned),
        "replayed_documents": replay,
        "samples": fine_tuning.sample_count,
    }
    metrics = [Metric("training/loss", loss, now, step) for step, loss in enumerate(fine_tuning.losses, 1)]
    metrics.append(Metric("training/seconds", fine_tuning.seconds, now, 0))
    client.log_batch(run_id, metrics, [Param(name, str(value)) for name, value in params.items()])


def log_comparison(client: MlflowClient, run_id: str, outcome: Outcome) -> None:
    """Log the challenger's scores beside the champion's."""
    challenger, champion = outcome.challenger, outcome.champion
    if challenger is None:
        return
    metrics = _metrics("unseen", challenger.unseen)
    if challenger.corrections_reproduced is not None:
        metrics["corrections_reproduced"] = challenger.corrections_reproduced
    if challenger.reliability:
        metrics["calibration_error"] = challenger.reliability.error
    if champion:
        metrics |= _metrics("champion", champion.unseen)
    now = _now()
    client.log_batch(run_id, [Metric(name, value, now, 0) for name, value in metrics.items()])
    client.log_dict(run_id, challenger.model_dump(mode="json"), "scores.json")


def log_chart(client: MlflowClient, run_id: str, outcome: Outcome) -> None:
    """Log a chart of the loss curve and the scores by type."""
    if outcome.challenger:
        losses = [metric.value for metric in client.get_metric_history(run_id, "training/loss")]
        client.log_figure(run_id, draw_chart(losses, outcome.challenger, outcome.champion), "report.png")


def draw_chart(losses: list[float], challenger: ModelScores, champion: ModelScores | None) -> Figure:
    """Draw the loss curve, the value F1 of each type on unseen documents beside the champion's, and the reliability."""
    figure = Figure(figsize=(15, 4), layout="constrained")
    curve, bars, reliability = figure.subplots(1, 3)
    if challenger.reliability and challenger.reliability.bins:
        _draw_reliability(reliability, challenger.reliability)
    curve.plot(range(1, len(losses) + 1), losses, color="tab:blue")
    curve.set(title="Training loss", xlabel="step", ylabel="nats a sample", yscale="log")
    both = {"champion": champion, "challenger": challenger} if champion else {"challenger": challenger}
    types = sorted({name for scores in both.values() for name in scores.unseen.value_by_type})
    for index, (label, scores) in enumerate(both.items()):
        of_type = scores.unseen.value_by_type
        heights = [of_type[name].f1 if name in of_type else 0.0 for name in types]
        places = [position + 0.4 * index for position in range(len(types))]
        bars.barh(places, heights, 0.38, label=f"{label}: {scores.unseen.value.f1:.2f}")
    middles = [position + 0.2 * (len(both) - 1) for position in range(len(types))]
    bars.set_yticks(middles, [_shorten(name) for name in types], parse_math=False)
    bars.set(title=f"Value F1 on {challenger.unseen.document_count} unseen documents", xlim=(0, 1))
    bars.legend(loc="lower center", bbox_to_anchor=(0.5, -0.25), ncols=2, frameon=False)
    return figure


def _draw_reliability(axes: Axes, reliability: Reliability) -> None:
    """Draw the share of extracted values that is right by their confidence; the area of a dot is their number."""
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    confidences, right, sizes = zip(
        *((each.confidence, each.right, each.size) for each in reliability.bins), strict=True
    )
    axes.plot(confidences, right, color="tab:blue")
    axes.scatter(confidences, right, [10 + 200 * size / sum(sizes) for size in sizes], color="tab:blue")
    title = f"Reliability of {sum(sizes)} values: calibration error {reliability.error:.3f}"
    axes.set(title=title, xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))


def _metrics(group: str, evaluation: Evaluation) -> dict[str, float]:
    if not evaluation.document_count:
        return {}
    by_type = {f"{group}/value_f1 {_to_metric(name)}": score.f1 for name, score in evaluation.value_by_type.items()}
    by_type |= {f"{group}/span_f1 {_to_metric(name)}": score.f1 for name, score in evaluation.span_by_type.items()}
    return {f"{group}/value_f1": evaluation.value.f1, f"{group}/span_f1": evaluation.span.f1, **by_type}


def _to_metric(name: str) -> str:
    """Return a type as MLflow permits it in a metric's name; a type that it does not permit gets a hash."""
    permitted = _NOT_IN_A_METRIC.sub("_", name)
    return name if permitted == name else f"{permitted} {hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…"


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
