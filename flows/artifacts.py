"""The report of a run, as a Prefect artifact a person can read."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from prefect.artifacts import create_markdown_artifact

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.evaluation import Evaluation, ModelScores, Predictions, gold_values, predicted_values
from registry.models import ModelRegistry
from registry.outcome import Outcome
from registry.settings import get_settings


def publish_report(outcome: Outcome, taught: Sequence[AnnotationData], before: Predictions, after: Predictions) -> None:
    """Publish the chart in MLflow; in Prefect the scores, what changed in the documents taught, and the MLflow run."""
    registry = ModelRegistry(get_settings())
    lines = [f"# {outcome.reason}", "", *_score_table(outcome), "", *_count_changes(taught, before, after)]
    if outcome.mlflow_run_id:
        registry.log_chart(outcome.mlflow_run_id, outcome)
        lines += ["", f"[Run in MLflow]({registry.run_url(outcome.mlflow_run_id)})"]
    if outcome.measured_documents:
        lines += ["", f"Held out, measured only: {len(outcome.measured_documents)} of the documents fed back."]
    create_markdown_artifact("\n".join(lines), "report", outcome.reason)


def _score_table(outcome: Outcome) -> list[str]:
    columns = [("champion", outcome.champion), ("challenger", outcome.challenger)]
    models = [(f"{role} (version {scores.version})", scores) for role, scores in columns if scores]
    if not models:
        return []

    def row(label: str, cells: Sequence[str]) -> str:
        return f"| {' | '.join([label, *cells])} |"

    def value_f1(evaluation: Evaluation, name: str) -> str:
        return f"{evaluation.value_by_type[name].f1:.3f}" if name in evaluation.value_by_type else "–"

    def kept(scores: ModelScores) -> str:
        return "–" if scores.corrections_kept is None else f"{scores.corrections_kept:.3f}"

    types = sorted({name for _, scores in models for name in scores.held_out.value_by_type})
    documents = models[0][1].held_out.document_count
    return [
        row("", [label for label, _ in models]),
        row("---", ["---"] * len(models)),
        row("**score**", [f"**{scores.score:.3f}**" for _, scores in models]),
        row("corrections kept", [kept(scores) for _, scores in models]),
        row(f"value F1, {documents} held out", [f"{scores.held_out.value.f1:.3f}" for _, scores in models]),
        row(f"span F1, {documents} held out", [f"{scores.held_out.span.f1:.3f}" for _, scores in models]),
        *(row(f"value F1 {name}", [value_f1(scores.held_out, name) for _, scores in models]) for name in types),
    ]


def _count_changes(taught: Sequence[AnnotationData], before: Predictions, after: Predictions) -> Iterator[str]:
    """Count by type what is found now and was not, and the reverse; the values are words of contracts and stay out."""
    counts: dict[str, Counter[tuple[bool, bool]]] = defaultdict(Counter)
    for data in taught:
        gold = gold_values(data)
        old = predicted_values(data, before[data.document_id])
        new = predicted_values(data, after[data.document_id])
        for item in old ^ new:
            counts[item[1]][item in new, item in gold] += 1
    if counts:
        yield "## What changed in the documents taught, values by type"
        yield ""
        yield "| type | found, rightly | found, wrongly | dropped, rightly | dropped, wrongly |"
        yield "| --- | --- | --- | --- | --- |"
        for name, of_type in sorted(counts.items()):
            cells = [of_type[True, True], of_type[True, False], of_type[False, False], of_type[False, True]]
            yield f"| {name} | {' | '.join(str(cell) for cell in cells)} |"
