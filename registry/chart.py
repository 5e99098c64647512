"""The chart of an MLflow run: the loss curve, scores by type, and how reliable the confidences are."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.calibration import Reliability
from embeddinggemma_feasibility.evaluation import Evaluation, Predictions, evaluate
from registry.outcome import ModelScores

_MAX_LABEL = 30  # characters of a type
_MAX_DOCUMENTS = 20  # with bars of their own


class Taught(NamedTuple):
    """The documents that a run taught, and what was found in them before and after."""

    documents: Sequence[AnnotationData]
    before: Predictions
    after: Predictions


def draw_chart(
    losses: Sequence[float], challenger: ModelScores, champion: ModelScores | None, taught: Taught
) -> Figure:
    """Draw the loss curve, the value F1 of each type on unseen documents beside the champion's, and the reliability.

    While nothing measures one of the latter, how each document was read before it was taught, and after, is there.
    """
    figure = Figure(figsize=(15, 4), layout="constrained")
    curve, by_type, right = figure.subplots(1, 3)
    curve.plot(range(1, len(losses) + 1), losses, color="tab:blue")
    curve.set(title="Training loss", xlabel="step", ylabel="nats a sample", yscale="log")
    if challenger.unseen.document_count:
        both = {"champion": champion, "challenger": challenger} if champion else {"challenger": challenger}
        _draw_types(by_type, {label: scores.unseen for label, scores in both.items()}, "unseen")
    else:
        before, after = (evaluate(taught.documents, found) for found in (taught.before, taught.after))
        _draw_types(by_type, {"before": before, "after": after}, "taught")
    if challenger.reliability and challenger.reliability.bins:
        _draw_reliability(right, challenger.reliability)
    else:
        _draw_documents(right, taught)
    return figure


def _draw_types(axes: Axes, evaluations: dict[str, Evaluation], which: str) -> None:
    """Draw bars with the value F1 of each type in unseen or taught documents."""
    types = sorted({name for scores in evaluations.values() for name in scores.value_by_type})
    rows = {
        f"{label}: {scores.value.f1:.2f}": [
            scores.value_by_type[name].f1 if name in scores.value_by_type else 0.0 for name in types
        ]
        for label, scores in evaluations.items()
    }
    _draw_bars(axes, types, rows)
    count = next(iter(evaluations.values())).document_count
    axes.set_title(f"Value F1 on {count} {which} document{'s' * (count != 1)}")


def _draw_documents(axes: Axes, taught: Taught) -> None:
    """Draw bars with the value F1 in each document before and after it was taught."""
    shown = taught.documents[:_MAX_DOCUMENTS]
    both = {"before": taught.before, "after": taught.after}
    rows = {label: [evaluate([data], found).value.f1 for data in shown] for label, found in both.items()}
    _draw_bars(axes, [f"document {number}" for number in range(1, len(shown) + 1)], rows)
    axes.set(title="Value F1 before and after it was taught", ylim=(-0.4, max(len(shown), 3)))


def _draw_bars(axes: Axes, labels: Sequence[str], rows: dict[str, list[float]]) -> None:
    for index, (name, lengths) in enumerate(rows.items()):
        axes.barh([position + 0.4 * index for position in range(len(labels))], lengths, 0.38, label=name)
    middles = [position + 0.2 * (len(rows) - 1) for position in range(len(labels))]
    axes.set_yticks(middles, [_shorten(label) for label in labels], parse_math=False)
    axes.set_xlim(0, 1)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.25), ncols=2, frameon=False)


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


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…"
