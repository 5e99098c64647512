"""What a run shows in Prefect: its progress, and a report that a person can read."""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from embeddinggemma_feasibility.evaluation import Evaluation, gold_values, predicted_values
from feedback.consolidation import Candidate
from feedback.contradictions import Contradiction
from feedback.prefect_runs import PROGRESS_KEY
from registry.chart import Taught
from registry.errors import translate_http_errors
from registry.models import ModelRegistry
from registry.outcome import ModelScores, Outcome
from registry.settings import get_settings

_ROWS_SHOWN = 100
_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")


class Progress:
    """The progress of one run in percent, as a Prefect artifact."""

    def __init__(self) -> None:
        self._percent = 0.0
        artifact = create_progress_artifact(0.0, PROGRESS_KEY, "Percent of this run that is done")
        self._artifact = cast("UUID", artifact)

    def reach(self, percent: float) -> None:
        """Show `percent`, in steps of at least five, since each is a request to Prefect."""
        if percent - self._percent >= 5 or percent >= 100:
            self._percent = percent
            update_progress_artifact(self._artifact, percent)


@translate_http_errors("Prefect")
def publish_report(outcome: Outcome, job_ids: Sequence[str], taught: Taught) -> None:
    """Publish the chart and the learning curve in MLflow, and a report in Prefect: scores, changes, links."""
    registry = ModelRegistry(get_settings())
    effect = [outcome.effect.summary, ""] if outcome.effect else []
    lines = [
        f"# {outcome.reason}",
        "",
        *effect,
        *_score_table(outcome),
        "",
        *_count_changes(taught),
        *_list_changes(outcome),
        "",
        "## Links",
        "",
    ]
    if outcome.mlflow_run_id:
        registry.log_chart(outcome.mlflow_run_id, outcome, taught)
        registry.log_champions()
        lines.append(f"- [Run in MLflow]({registry.get_run_url(outcome.mlflow_run_id)})")
    lines += [f"- Job {_link('/jobs/', job_id)}" for job_id in job_ids[:_ROWS_SHOWN]]
    lines += [f"- Document {_link_document(data.document_id)}" for data in taught.documents[:_ROWS_SHOWN]]
    create_markdown_artifact("\n".join(lines), "report", outcome.reason)


@translate_http_errors("Prefect")
def publish_set_aside(reasons: Mapping[str, str], jobs: Mapping[str, str]) -> None:
    """Publish in Prefect which documents are set aside, with what they contradict, and the jobs that taught them."""
    count = len(reasons)
    title = f"{count} document{'s are' if count != 1 else ' is'} set aside"
    lines = [
        f"# {title}",
        "",
        "Change the annotations and send them again, or insist on them with `POST /jobs/{job_id}/teach`.",
        "",
        *(
            f"- {_link_document(document_id)}: {_escape(reason)} Job {_link('/jobs/', jobs[document_id])}."
            for document_id, reason in list(reasons.items())[:_ROWS_SHOWN]
        ),
    ]
    create_markdown_artifact("\n".join(lines), "set-aside", title)


@translate_http_errors("Prefect")
def publish_consolidation(candidate: Candidate, job_id: str) -> None:
    """Publish a report in Prefect: what the candidate was fitted on, and which job hands it over."""
    lines = [
        f"# {candidate.description}",
        "",
        f"- Job {_link('/jobs/', job_id)} hands it over: the run of that job teaches it what was learned after job "
        f"{candidate.snapshot}, compares it with the champion, and promotes it unless it is worse. If it "
        "unlearns, it is promoted even then; if no model resulted, none is served any more.",
    ]
    if candidate.mlflow_run_id:
        lines.append(f"- [Run in MLflow]({ModelRegistry(get_settings()).get_run_url(candidate.mlflow_run_id)})")
    create_markdown_artifact("\n".join(lines), "report", candidate.description)


@translate_http_errors("Prefect")
def publish_contradictions(contradictions: Sequence[Contradiction]) -> None:
    """Publish the first hundred contradictions as a table in Prefect: places, not values, which are confidential."""
    rows = [
        {
            "document": each.document_id,
            "characters": f"{each.start}-{each.end}",
            "found as": each.type,  # not escaped: the UI shows the cells of a table artifact as plain text
            "confidence": f"{each.confidence:.0%}",
            "marked as": ", ".join(each.marked_as) or "nothing",
        }
        for each in contradictions[:_ROWS_SHOWN]
    ]
    many = len({each.document_id for each in contradictions})
    description = (
        f"{len(contradictions)} annotations in {many} document{'s' * (many != 1)} contradict what was learned from "
        f"others, the first {len(rows)} of them below. Check each: if it is wrong, correct it and send feedback."
    )
    create_table_artifact(rows, "contradictions", description)


def _score_table(outcome: Outcome) -> list[str]:
    columns = [("champion", outcome.champion), ("challenger", outcome.challenger)]
    models = [(f"{role} (version {scores.version})", scores) for role, scores in columns if scores]
    if not models:
        return []

    def row(label: str, cells: Sequence[str]) -> str:
        return f"| {' | '.join([label, *cells])} |"

    def value_f1(evaluation: Evaluation, name: str) -> str:
        return f"{evaluation.value_by_type[name].f1:.3f}" if name in evaluation.value_by_type else "–"

    def reproduced(scores: ModelScores) -> str:
        return "–" if scores.corrections_reproduced is None else f"{scores.corrections_reproduced:.3f}"

    types = sorted({name for _, scores in models for name in scores.unseen.value_by_type})
    documents = models[0][1].unseen.document_count
    return [
        row("", [label for label, _ in models]),
        row("---", ["---"] * len(models)),
        row("corrections reproduced", [reproduced(scores) for _, scores in models]),
        row(f"value F1, {documents} unseen", [f"{scores.unseen.value.f1:.3f}" for _, scores in models]),
        row(f"span F1, {documents} unseen", [f"{scores.unseen.span.f1:.3f}" for _, scores in models]),
        *(row(f"value F1 {_escape(name)}", [value_f1(scores.unseen, name) for _, scores in models]) for name in types),
    ]


def _count_changes(taught: Taught) -> Iterator[str]:
    """Count the values that only one of the models finds, by type; the values themselves are confidential."""
    counts: dict[str, Counter[tuple[bool, bool]]] = defaultdict(Counter)
    for data in taught.documents:
        gold = gold_values(data)
        old = predicted_values(data, taught.before[data.document_id])
        new = predicted_values(data, taught.after[data.document_id])
        for value in old ^ new:
            counts[value.type][value in new, value in gold] += 1
    if counts:
        yield "## What changed in the training documents, values by type"
        yield ""
        yield "| type | found, correct | found, wrong | dropped, wrong | dropped, correct |"
        yield "| --- | --- | --- | --- | --- |"
        for name, of_type in sorted(counts.items()):
            cells = [of_type[True, True], of_type[True, False], of_type[False, False], of_type[False, True]]
            yield f"| {_escape(name)} | {' | '.join(str(cell) for cell in cells)} |"


def _list_changes(outcome: Outcome) -> Iterator[str]:
    if outcome.effect and outcome.effect.changes:
        yield ""
        yield "## What changed in other reviewed documents, values"
        yield ""
        yield "| document | type | became right | became wrong |"
        yield "| --- | --- | --- | --- |"
        for change in outcome.effect.changes:
            counts = f"{change.improved} | {change.worsened}"
            yield f"| {_link_document(change.document_id)} | {_escape(change.type)} | {counts} |"


def _link_document(document_id: str) -> str:
    return _link("/#/documents/", document_id)


def _link(path: str, name: str) -> str:
    """Return markdown for something that the API has at a path and a name; only the name without the API's address."""
    url = get_settings().public_url
    return f"[{name}]({url.rstrip('/')}{path}{name})" if url else f"`{name}`"


def _escape(name: str) -> str:
    """Return markdown that shows the name as it is, in one line."""
    return _PUNCTUATION.sub(r"\\\g<0>", " ".join(name.split()))
