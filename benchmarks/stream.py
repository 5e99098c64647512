"""Feed contracts back one by one and score unseen ones; train other systems on the same contracts.

python -m benchmarks.stream [--data FILE.jsonl.xz … --language en] [--points 5 10 20 50 100 200] [--unseen 30]
  [--kept 94] [--pause 12] [--peers CRF]
"""

import argparse
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.corpus import SHARED_DATA, Contract, read_contracts
from benchmarks.learning_curve import OURS
from benchmarks.peers import CrfPeer, Peer, SpacyPeer, TrainerPeer
from benchmarks.results_file import write_results
from cli.installation import ANY_PORTS, run_stack
from demo.client import ContractReviewer, ReviewedDocument
from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.calibration import summarise
from embeddinggemma_feasibility.evaluation import Evaluation, LabelledValue, evaluate, gold_values, normalise_value

Row = dict[str, Any]
_DATA = ".jsonl or .jsonl.xz files, or the folder pdfs: ../shared/data/README.md"
_PEERS: dict[str, Callable[[str], Peer]] = {
    "CRF": lambda _: CrfPeer(),
    "spaCy": SpacyPeer,
    "Trainer": lambda _: TrainerPeer(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", default=[SHARED_DATA / "cuad/train.jsonl.xz"], help=_DATA)
    parser.add_argument("--language", default="en", help="language of the corpus, for spaCy")
    parser.add_argument("--points", type=int, nargs="+", default=[5, 10, 20, 50, 100, 200])
    parser.add_argument(
        "--unseen", type=int, default=30, help="number of contracts to score: the first ones; the rest are fed back"
    )
    parser.add_argument(
        "--kept", type=int, default=0, help="number of contracts to score once, at the end: the last ones"
    )
    parser.add_argument(
        "--pause", type=float, default=0, help="seconds before each contract, in which a consolidation can run"
    )
    parser.add_argument("--characters", type=int, default=80_000, help="longer contracts are skipped")
    parser.add_argument("--peers", nargs="*", default=list(_PEERS), choices=_PEERS)
    arguments = parser.parse_args()
    corpus = [contract for path in arguments.data for contract in read_contracts(path)]
    contracts = list(
        {
            contract.data.text: contract
            for contract in corpus
            if contract.data.spans and len(contract.data.text) <= arguments.characters
        }.values()
    )
    last = len(contracts) - arguments.kept
    if last < arguments.unseen:
        parser.error(f"There are only {len(contracts)} contracts to score")
    unseen, stream = contracts[: arguments.unseen], contracts[arguments.unseen : last][: max(arguments.points)]

    results = {"unseen": len(unseen), "characters_at_most": arguments.characters}
    first = arguments.data[0]
    name = f"stream_{(first if first.is_dir() else first.parent).name}"
    rows = _run_ours(stream, unseen, contracts[last:], arguments.points, arguments.pause)
    path = write_results(name, {**results, "rows": rows})
    for peer, point in itertools.product(arguments.peers, arguments.points):
        rows.append(_run_peer(_PEERS[peer](arguments.language), stream[:point], unseen))
        _print([rows[-1]])
        write_results(name, {**results, "rows": rows})  # each time, since a run takes hours
    print()
    _print(rows)
    print(path)


def _run_ours(
    stream: Sequence[Contract],
    unseen: Sequence[Contract],
    kept: Sequence[Contract],
    points: Sequence[int],
    pause: float,
) -> list[Row]:
    """Feed the stream to a real installation over HTTP; score the unseen contracts at each point, the kept at the end.

    `version` is the served one: each feedback adds one, refused or not, and so does each consolidation.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder), ANY_PORTS) as stack:
        client = ContractReviewer(stack.api_url, stack.api_key)
        documents = {contract.data.document_id: _upload(client, contract) for contract in unseen}

        def extract(data: AnnotationData) -> list[Entity]:
            return client.extract(documents[data.document_id].id)[1]

        before: list[float] = []
        seconds: list[float] = []
        decisions: list[str] = []
        for number, contract in enumerate(stream, 1):
            time.sleep(pause)
            document = documents[contract.data.document_id] = _upload(client, contract)
            before.append(_score([contract], extract).value.f1)
            started = time.monotonic()
            job = client.wait_for_job(client.feed_back(document))
            seconds.append(time.monotonic() - started)
            decisions.append(job["outcome"]["decision"])
            described = f"{number:4} {len(document.text):7} characters, F1 {before[-1]:.3f}, {seconds[-1]:5.1f} s"
            print(f"{described}: {job['message']}", flush=True)
            if number in points:
                last = rows[-1]["contracts"] if rows else 0
                rows.append({"system": OURS, "contracts": number, "seconds": round(seconds[-1], 1)})
                rows[-1] |= _measure(unseen, extract) | _describe_jobs(decisions[last:], seconds[last:])
                rows[-1]["value_f1_on_the_first_ten"] = round(_score(stream[: min(10, number)], extract).value.f1, 3)
                rows[-1]["version"] = client.extract(document.id)[0]
                _print([rows[-1]])
        rows[-1]["f1_before_feedback"] = [round(f1, 3) for f1 in before]
        rows[-1]["seconds_of_each"] = [round(second, 1) for second in seconds]
        if kept:
            documents |= {contract.data.document_id: _upload(client, contract) for contract in kept}
            rows[-1]["kept"] = {"contracts": len(kept), **_measure(kept, extract)}
    return rows


def _describe_jobs(decisions: Sequence[str], seconds: Sequence[float]) -> Row:
    """Return what became of the feedbacks since the last row, and how long they took."""
    counts = Counter(decisions)
    return {
        "promoted": counts.pop("promoted", 0),
        "refused": counts.pop("not_promoted", 0),
        "not_taught": counts.total(),
        "seconds_median": round(median(seconds), 1),
        "seconds_p95": round(sorted(seconds)[int(0.95 * (len(seconds) - 1))], 1),
    }


def _measure(contracts: Sequence[Contract], extract: Callable[[AnnotationData], list[Entity]]) -> Row:
    """Extract each contract once; return the scores, and how far the confidences are from the truth, in bins."""
    found = {contract.data.document_id: extract(contract.data) for contract in contracts}
    estimated = {}
    for contract in contracts:
        gold = gold_values(contract.data)
        for entity in found[contract.data.document_id]:
            value = LabelledValue(contract.data.document_id, entity.type, normalise_value(entity.value))
            estimated[value] = entity.confidence, value in gold
    reliability = summarise(estimated.values())
    return {
        **_describe_scores(evaluate([contract.data for contract in contracts], found)),
        "calibration_error": round(reliability.error, 3),
        "bins": [each.model_dump() for each in reliability.bins],
    }


def _upload(client: ContractReviewer, contract: Contract) -> ReviewedDocument:
    return client.upload(contract.filename, contract.content, contract.data.text, contract.data.spans)


def _run_peer(peer: Peer, training: Sequence[Contract], unseen: Sequence[Contract]) -> Row:
    started = time.monotonic()
    predict = peer.train([contract.data for contract in training])
    seconds = time.monotonic() - started
    evaluation = _score(unseen, lambda data: predict(data.text))
    row = {"system": peer.name, "contracts": len(training), "seconds": round(seconds, 1)}
    return row | _describe_scores(evaluation)


def _score(contracts: Sequence[Contract], extract: Callable[[AnnotationData], list[Entity]]) -> Evaluation:
    gold = [contract.data for contract in contracts]
    return evaluate(gold, {data.document_id: extract(data) for data in gold})


def _describe_scores(evaluation: Evaluation) -> Row:
    return {
        "value_f1": round(evaluation.value.f1, 3),
        "span_f1": round(evaluation.span.f1, 3),
        "value_f1_by_type": {name: round(score.f1, 3) for name, score in sorted(evaluation.value_by_type.items())},
    }


def _print(rows: Sequence[Row]) -> None:
    for row in rows:
        print(
            f"{row['system']:18} {row['contracts']:4} contracts: value F1 {row['value_f1']:.3f}, span F1 "
            f"{row['span_f1']:.3f}, last training {row['seconds']:7.1f} s",
            flush=True,
        )
        if "promoted" in row:
            print(
                f"{'':24} since the row before: {row['promoted']} promoted, {row['refused']} refused, "
                f"{row['not_taught']} not taught; median {row['seconds_median']} s, p95 {row['seconds_p95']} s; "
                f"calibration error {row['calibration_error']:.3f}, version {row['version']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
