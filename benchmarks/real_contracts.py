"""The loop on real contracts: feed back the first PDFs of CUAD, score the last ones before and after.

python -m benchmarks.real_contracts [--taught 20] [--unseen 20]
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.pdf import read_document
from benchmarks.corpus import PdfContract, read_pdf_contracts
from benchmarks.results_file import write_results
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.evaluation import Evaluation, evaluate
from local.client import ReviewedDocument, ReviewerClient
from local.processes import ANY_PORTS, run_stack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--taught", type=int, default=20)
    parser.add_argument("--unseen", type=int, default=20)
    arguments = parser.parse_args()
    contracts = [contract for contract in read_pdf_contracts() if _is_readable(contract)]
    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder), ANY_PORTS) as stack:
        client = ReviewerClient(stack.api_url, stack.api_key)
        unseen = [_upload(client, contract) for contract in contracts[-arguments.unseen :]]
        rows = [_row(0, *_score(client, unseen), {})]
        for number, contract in enumerate(contracts[: arguments.taught], 1):
            document = _upload(client, contract)
            client.extract(document.id)
            started = time.monotonic()
            job = client.wait_for_job(client.feed_back(document))
            job["seconds"] = round(time.monotonic() - started, 1)
            print(f"{number:3} {job['seconds']:6.1f} s  {job['status']}: {job['message']}", flush=True)
            if number in {1, 5, 10, 15, arguments.taught}:
                rows.append(_row(number, *_score(client, unseen), job))
                print(f"    {rows[-1]}", flush=True)
    print(f"\n{'fed back':>8} {'version':>7} {'value F1':>8} {'span F1':>8}")
    for row in rows:
        print(f"{row['fed_back']:8} {row['version'] or '-':>7} {row['value_f1']:8.3f} {row['span_f1']:8.3f}")
    print(write_results("real_contracts", rows))


def _is_readable(contract: PdfContract) -> bool:
    """Tell whether PDFium reads the characters of the gold text; of one of the 60 it reads 56 more."""
    text = read_document(contract.pdf).text
    return len("".join(text.split())) == len("".join(contract.gold.text.split()))


def _upload(client: ReviewerClient, contract: PdfContract) -> ReviewedDocument:
    return client.upload(contract.filename, contract.pdf, contract.gold.text, contract.gold.spans)


def _score(client: ReviewerClient, unseen: Sequence[ReviewedDocument]) -> tuple[str | None, Evaluation]:
    answers = {document.id: client.extract(document.id) for document in unseen}
    gold = [AnnotationData(document.id, document.text, document.spans) for document in unseen]
    found = {document_id: entities for document_id, (_, entities) in answers.items()}
    return next(iter(answers.values()))[0], evaluate(gold, found)


def _row(fed_back: int, version: str | None, evaluation: Evaluation, job: dict[str, Any]) -> dict[str, Any]:
    return {
        "fed_back": fed_back,
        "version": version,
        "value_f1": round(evaluation.value.f1, 3),
        "span_f1": round(evaluation.span.f1, 3),
        "value_f1_by_type": {name: round(score.f1, 3) for name, score in sorted(evaluation.value_by_type.items())},
        "seconds_of_last_job": job.get("seconds"),
    }


if __name__ == "__main__":
    main()
