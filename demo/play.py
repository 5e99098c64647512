"""The demo: a reviewer's client that extracts, corrects, submits feedback, waits and extracts again."""

import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from demo.client import ContractReviewer, ReviewedDocument
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.evaluation import Evaluation, evaluate, find_corrections

# Seeds of generated contracts. The service holds out the last of the reviewed ones.
_REVIEWED, _UNSEEN = range(10, 19), range(1000, 1012)
_console = Console(highlight=False)


@dataclass(frozen=True)
class _Step:
    """A served version and its scores on the unseen contracts."""

    version: str
    reviewed: int
    evaluation: Evaluation
    seconds: float


def play_demo(api_url: str, api_key: str) -> bool:
    """Review generated contracts; return whether the last version scores higher than the first on unseen ones."""
    client = ContractReviewer(api_url, api_key)
    _console.print(f"Uploading {len(_UNSEEN)} contracts that no version is trained on …")
    unseen = [_upload(client, seed) for seed in _UNSEEN]
    steps: list[_Step] = []
    for number, seed in enumerate(_REVIEWED, 1):
        document = _upload(client, seed)
        started = time.monotonic()
        corrections, message = _review(client, document)
        seconds = time.monotonic() - started
        version, evaluation = _score(client, unseen)
        _console.print(
            f"{number}/{len(_REVIEWED)}  {corrections} corrections, job finished after {seconds:.0f} s: {message}\n"
            f"     unseen contracts, value F1 with version {version}: [bold]{evaluation.value.f1:.3f}[/bold]"
        )
        if version and (not steps or steps[-1].version != version):
            steps.append(_Step(version, number, evaluation, seconds))
    _print_table(steps)
    return len(steps) > 1 and steps[-1].evaluation.value.f1 > steps[0].evaluation.value.f1


def _upload(client: ContractReviewer, seed: int) -> ReviewedDocument:
    contract = generate_contract(seed)
    return client.upload(contract.filename, contract.pdf, contract.text, contract.spans)


def _review(client: ContractReviewer, document: ReviewedDocument) -> tuple[int, str]:
    """Correct what is extracted from a document; return the number of corrections and the job's message."""
    _, entities = client.extract(document.id)
    corrections = find_corrections(AnnotationData(document.id, document.text, document.spans), entities)
    job = client.wait_for_job(client.feed_back(document))
    return len(corrections), str(job["message"])


def _score(client: ContractReviewer, unseen: list[ReviewedDocument]) -> tuple[str | None, Evaluation]:
    """Return the served version and its scores on the unseen contracts."""
    answers = {document.id: client.extract(document.id) for document in unseen}
    gold = [AnnotationData(document.id, document.text, document.spans) for document in unseen]
    evaluation = evaluate(gold, {document_id: entities for document_id, (_, entities) in answers.items()})
    return next(iter(answers.values()))[0], evaluation


def _print_table(steps: list[_Step]) -> None:
    table = Table(title=f"Scores on {len(_UNSEEN)} unseen contracts after each promoted version")
    for heading in ("version", "contracts reviewed", "value F1", "span F1", "seconds from feedback to answer"):
        table.add_column(heading, justify="right")
    for step in steps:
        scores = (f"{step.evaluation.value.f1:.3f}", f"{step.evaluation.span.f1:.3f}")
        table.add_row(step.version, str(step.reviewed), *scores, f"{step.seconds:.0f}")
    _console.print(table)
