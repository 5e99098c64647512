"""The loop as a reviewer lives it: extract, correct, feed back, wait, extract the next."""

import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from cli.installation import Stack
from demo.client import ReviewedDocument, ReviewerClient
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.evaluation import Evaluation, evaluate, find_corrections

_TAUGHT, _UNSEEN = range(10, 19), range(1000, 1012)  # contract 18 is held out
_console = Console(highlight=False)


@dataclass(frozen=True)
class _Step:
    """A version as the unseen contracts show it."""

    version: str
    fed_back: int
    evaluation: Evaluation
    seconds: float


def play_demo(stack: Stack) -> bool:
    """Play the loop on generated contracts and return whether the last version beats the first on unseen ones."""
    client = ReviewerClient(stack.api_url, stack.api_key)
    _console.print(f"Uploading {len(_UNSEEN)} contracts that no version learns from …")
    unseen = [_upload(client, seed) for seed in _UNSEEN]
    steps: list[_Step] = []
    for number, seed in enumerate(_TAUGHT, 1):
        document = _upload(client, seed)
        started = time.monotonic()
        corrections, decision = _teach(client, document)
        seconds = time.monotonic() - started
        version, evaluation = _score(client, unseen)
        _console.print(
            f"{number}/{len(_TAUGHT)}  {corrections} corrections fed back, answered in {seconds:.0f} s: {decision}\n"
            f"     unseen contracts, value F1 with version {version}: [bold]{evaluation.value.f1:.3f}[/bold]"
        )
        if version and (not steps or steps[-1].version != version):
            steps.append(_Step(version, number, evaluation, seconds))
    _print_table(steps)
    return len(steps) > 1 and steps[-1].evaluation.value.f1 > steps[0].evaluation.value.f1


def _upload(client: ReviewerClient, seed: int) -> ReviewedDocument:
    contract = generate_contract(seed)
    return client.upload(contract.filename, contract.pdf, contract.text, contract.spans)


def _teach(client: ReviewerClient, document: ReviewedDocument) -> tuple[int, str]:
    _, entities = client.extract(document.id)
    corrections = find_corrections(AnnotationData(document.id, document.text, document.spans), entities)
    job = client.wait_for_job(client.feed_back(document))
    return len(corrections), str(job["message"])


def _score(client: ReviewerClient, unseen: list[ReviewedDocument]) -> tuple[str | None, Evaluation]:
    answers = {document.id: client.extract(document.id) for document in unseen}
    gold = [AnnotationData(document.id, document.text, document.spans) for document in unseen]
    evaluation = evaluate(gold, {document_id: entities for document_id, (_, entities) in answers.items()})
    return next(iter(answers.values()))[0], evaluation


def _print_table(steps: list[_Step]) -> None:
    table = Table(title=f"Score on {len(_UNSEEN)} unseen contracts after each version")
    for heading in ("version", "contracts fed back", "value F1", "span F1", "seconds from feedback to answer"):
        table.add_column(heading, justify="right")
    for step in steps:
        scores = (f"{step.evaluation.value.f1:.3f}", f"{step.evaluation.span.f1:.3f}")
        table.add_row(step.version, str(step.fed_back), *scores, f"{step.seconds:.0f}")
    _console.print(table)
