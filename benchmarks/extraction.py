"""Compare the speed and memory of extraction with transformers' own pipeline on the same weights.

python -m benchmarks.extraction
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from itertools import count as count_from
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import torch
from transformers import pipeline

from benchmarks.corpus import SHARED_DATA, join_generated, read_corpus
from benchmarks.peers import build_classifier
from benchmarks.results_file import write_results
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.packaged_encoder import read_packaged_encoder
from embeddinggemma_feasibility.span_crf import OUTSIDE, TAGS
from embeddinggemma_feasibility.tagger import BATCH_WINDOWS, Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig

Extract = Callable[[list[str]], object]

ROUNDS = 5
QUEUE = 8
CONTRACT_CHARACTERS = 17_000
TYPES = 8


def main() -> None:
    contracts = _read_contracts(ROUNDS * (QUEUE + 1))
    systems = {"Tagger.extract": _System(_build_tagger), "transformers pipeline": _System(_build_pipeline)}
    speeds: dict[str, dict[str, list[float]]] = {name: {"one": [], "queue": []} for name in systems}
    for first in range(0, len(contracts), QUEUE + 1):
        batches = {"one": contracts[first : first + 1], "queue": contracts[first + 1 : first + QUEUE + 1]}
        for case, texts in batches.items():
            for name, system in systems.items():
                speeds[name][case].append(system.measure(texts))
    rows = [
        {
            "system": name,
            "one": round(median(speeds[name]["one"])),
            "queue": round(median(speeds[name]["queue"])),
            "peak_memory_mib": system.close(),
        }
        for name, system in systems.items()
    ]
    _print(rows)
    results = {"rounds": ROUNDS, "queue": QUEUE, "medians": rows, "each_round": speeds}
    print(write_results("extraction", results))


class _System:
    """One of the two systems, in its own process, idle unless it is measured."""

    def __init__(self, build: Callable[[], Extract]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(build, other), daemon=True)
        self.process.start()
        self.connection.recv()

    def measure(self, texts: list[str]) -> float:
        """Return how many characters of these texts it reads per second."""
        self.connection.send(texts)
        seconds: float = self.connection.recv()
        return sum(map(len, texts)) / seconds

    def close(self) -> int:
        """Stop the process and return its peak memory in MiB."""
        self.connection.send(None)
        kibibytes: int = self.connection.recv()
        self.process.join()
        return kibibytes // 1024


def _serve(build: Callable[[], Extract], connection: Connection) -> None:
    extract = build()
    extract([generate_contract(0).text])
    connection.send("ready")
    while texts := connection.recv():
        started = time.perf_counter()
        extract(texts)
        connection.send(time.perf_counter() - started)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _build_tagger() -> Extract:
    """Return the tagger's extraction, one contract after another.

    It is untrained, since training would raise the peak memory, and biased to find nothing, as the pipeline is.
    """
    tagger = Tagger(load_encoder(), [f"type_{index}" for index in range(TYPES)], TrainingConfig())
    with torch.no_grad():
        tagger.bias[OUTSIDE::TAGS] = 100
    return lambda texts: [tagger.extract(text) for text in texts]


def _build_pipeline() -> Extract:
    """Return the pipeline on all layers of the packaged encoder, with the tagger's windows, overlap and batch size.

    It is biased to find nothing: joining the entities of an untrained head would take time.
    """
    config = TrainingConfig()
    _, tokenizer = read_packaged_encoder()
    tokenizer.model_max_length = config.window_pieces + 2
    names = {index: "O" if index == 0 else f"I-{index}" for index in range(TYPES * TAGS)}
    model = build_classifier(names)
    with torch.no_grad():
        model.classifier.bias[0] = 100
    extract: Extract = pipeline(
        "token-classification",
        model,
        tokenizer=tokenizer,
        stride=config.window_overlap,
        aggregation_strategy="simple",
        batch_size=BATCH_WINDOWS,
        device="cpu",
    )
    return extract


def _read_contracts(count: int) -> list[str]:
    """Return different texts of about 17,000 characters: from CUAD if it is there, else generated."""
    path = SHARED_DATA / "cuad/train.jsonl.xz"
    if path.exists():
        texts = [data.text for data in read_corpus(path)]
        return sorted(texts, key=lambda text: abs(len(text) - CONTRACT_CHARACTERS))[:count]
    seeds = count_from(0)
    return [join_generated(seeds, CONTRACT_CHARACTERS)[0] for _ in range(count)]


def _print(rows: list[dict[str, Any]]) -> None:
    print(f"{'':24} {'one, characters/s':>18} {'queue, characters/s':>20} {'peak memory, MiB':>17}")
    for row in rows:
        print(f"{row['system']:24} {row['one']:18,} {row['queue']:20,} {row['peak_memory_mib']:17,}")
    ours, theirs = rows
    ratios = [ours[column] / theirs[column] for column in ("one", "queue", "peak_memory_mib")]
    print(f"{'ratio':24} {ratios[0]:18.2f} {ratios[1]:20.2f} {ratios[2]:17.2f}")


if __name__ == "__main__":
    main()
