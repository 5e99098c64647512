"""Contracts arrive one by one: extract, score, feed back the gold; and what other systems make of the same contracts.

python -m benchmarks.stream [--data FILE.jsonl.xz --language en] [--points 5 10 20] [--unseen 30] [--peers CRF]
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.corpus import SHARED_DATA, read_corpus
from benchmarks.peers import CrfPeer, Peer, SpacyPeer, TrainerPeer
from benchmarks.results_file import write_results
from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.evaluation import Evaluation, evaluate
from local.client import ReviewerClient
from local.processes import ANY_PORTS, run_stack

OURS = "contract-feedback"
Row = dict[str, Any]
_PEERS: dict[str, Callable[[str], Peer]] = {
    "CRF": lambda _: CrfPeer(),
    "spaCy": SpacyPeer,
    "Trainer": lambda _: TrainerPeer(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "cuad/train.jsonl.xz")
    parser.add_argument("--language", default="en", help="of the corpus, for spaCy")
    parser.add_argument("--points", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--unseen", type=int, default=30)
    parser.add_argument("--characters", type=int, default=40_000, help="longer contracts are left out")
    parser.add_argument("--peers", nargs="*", default=list(_PEERS), choices=_PEERS)
    arguments = parser.parse_args()
    corpus = [data for data in read_corpus(arguments.data) if len(data.text) <= arguments.characters and data.spans]
    stream, unseen = corpus[: max(arguments.points)], corpus[max(arguments.points) :][: arguments.unseen]

    rows = _run_ours(stream, unseen, arguments.points)
    for name, point in itertools.product(arguments.peers, arguments.points):
        rows.append(_run_peer(_PEERS[name](arguments.language), stream[:point], unseen))
        _print([rows[-1]])
    print()
    _print(rows)
    name = f"stream_{arguments.data.parent.name}"
    path = write_results(name, {"unseen": len(unseen), "characters_at_most": arguments.characters, "rows": rows})
    _draw(rows, path.with_suffix(".png"))
    print(path)


def _run_ours(stream: Sequence[AnnotationData], unseen: Sequence[AnnotationData], points: Sequence[int]) -> list[Row]:
    """Feed the stream to the real service over HTTP, and score it on the unseen contracts at each point."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder), ANY_PORTS) as stack:
        client = ReviewerClient(stack.api_url, stack.api_key)
        fixed = {
            data.document_id: client.upload(f"{data.document_id}.txt", data.text.encode(), data.text, data.spans).id
            for data in unseen
        }
        before: list[float] = []
        seconds: list[float] = []
        for number, data in enumerate(stream, 1):
            document = client.upload(f"{number}.txt", data.text.encode(), data.text, data.spans)
            _, entities = client.extract(document.id)
            before.append(evaluate([data], {data.document_id: entities}).value.f1)
            started = time.monotonic()
            job = client.wait_for_job(client.feed_back(document))
            seconds.append(time.monotonic() - started)
            described = f"{number:4} {len(data.text):7} characters, F1 {before[-1]:.3f}, {seconds[-1]:5.1f} s"
            print(f"{described}: {job['message']}", flush=True)
            if number in points:
                evaluation = _score(unseen, lambda data: client.extract(fixed[data.document_id])[1])
                rows.append(_row(OURS, number, evaluation, seconds[-1]))
                _print([rows[-1]])
        rows[-1]["f1_before_feedback"] = [round(f1, 3) for f1 in before]
        rows[-1]["seconds_of_each"] = [round(second, 1) for second in seconds]
    return rows


def _run_peer(peer: Peer, taught: Sequence[AnnotationData], unseen: Sequence[AnnotationData]) -> Row:
    started = time.monotonic()
    predict = peer.train(taught)
    seconds = time.monotonic() - started
    return _row(peer.name, len(taught), _score(unseen, lambda data: predict(data.text)), seconds)


def _score(unseen: Sequence[AnnotationData], extract: Callable[[AnnotationData], list[Entity]]) -> Evaluation:
    return evaluate(unseen, {data.document_id: extract(data) for data in unseen})


def _row(system: str, contracts: int, evaluation: Evaluation, seconds: float) -> Row:
    return {
        "system": system,
        "contracts": contracts,
        "value_f1": round(evaluation.value.f1, 3),
        "span_f1": round(evaluation.span.f1, 3),
        "seconds": round(seconds, 1),
        "value_f1_by_type": {name: round(score.f1, 3) for name, score in sorted(evaluation.value_by_type.items())},
    }


def _print(rows: Sequence[Row]) -> None:
    for row in rows:
        print(
            f"{row['system']:18} {row['contracts']:4} contracts: value F1 {row['value_f1']:.3f}, span F1 "
            f"{row['span_f1']:.3f}, last training {row['seconds']:7.1f} s",
            flush=True,
        )


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Draw each system's value F1 on the unseen contracts by the number of contracts learned."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for system in dict.fromkeys(row["system"] for row in rows):
        of_system = [row for row in rows if row["system"] == system]
        points = [row["contracts"] for row in of_system], [row["value_f1"] for row in of_system]
        axes.plot(*points, marker="o", label=system)
    axes.set(xlabel="contracts learned", ylabel="value F1 on unseen contracts", ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
