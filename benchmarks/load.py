"""Measure many clients at once, extraction during training, and memory over an hour.

python -m benchmarks.load [--clients 1 8 32 128] [--seconds 60] [--extractions 40]
python -m benchmarks.load --soak 60
"""

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import httpx

from benchmarks.corpus import upload_generated
from benchmarks.results_file import print_seconds, summarise, write_results
from benchmarks.soak import measure_memory, soak
from cli.installation import ANY_PORTS, Stack, run_stack
from client.errors import ApiError
from demo.client import ContractReviewer, ReviewedDocument

CHARACTERS = 17_000
EXTRACTIONS_PER_FEEDBACK = 9
ROUNDS = 4
TRAINING_SECONDS = 20
WHEN = ALONE, TRAINING = "alone", "during training"
_numbers = count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--extractions", type=int, default=40)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    arguments = parser.parse_args()
    os.environ["CONTRACT_FEEDBACK_REQUESTS_PER_MINUTE"] = "1000000"
    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder), ANY_PORTS) as stack:
        client = ContractReviewer(stack.api_url, stack.api_key)
        documents = [upload_generated(client, CHARACTERS) for _ in range(10)]
        for job_id in [client.feed_back(document) for document in documents[:5]]:
            client.wait_for_job(job_id)
        if arguments.soak:
            print(write_results("load_soak", soak(stack, client, documents, arguments.soak)))
            return
        during_training = _compare_during_training(stack, client, documents, arguments.extractions)
        mixed = {number: _mix(stack, documents, number, arguments.seconds) for number in arguments.clients}
    results = {
        "characters": CHARACTERS,
        "extractions_per_feedback": EXTRACTIONS_PER_FEEDBACK,
        "seconds": arguments.seconds,
    }
    print(write_results("load", results | {"during_training": during_training, "mixed_by_clients": mixed}))


def _feed_back(client: ContractReviewer, document: ReviewedDocument, number: int) -> str:
    """Send all spans of a document except one, a different one each time: identical feedback returns the same job."""
    left_out = number % len(document.spans)
    return client.feed_back(replace(document, spans=document.spans[:left_out] + document.spans[left_out + 1 :]))


def _mix(stack: Stack, documents: list[ReviewedDocument], clients: int, seconds: float) -> dict[str, Any]:
    """Have clients extract any document and correct their own; `documents` is extended to one per client."""
    client = ContractReviewer(stack.api_url, stack.api_key)
    documents += [upload_generated(client, CHARACTERS) for _ in range(clients - len(documents))]
    for document in documents:
        client.extract(document.id)
    taken: dict[str, list[float]] = {"extraction": [], "feedback": []}
    errors: Counter[str] = Counter()
    jobs: list[str] = []
    until, cpu_before = time.monotonic() + seconds, time.process_time()

    def play(index: int) -> None:
        own, rng = ContractReviewer(stack.api_url, stack.api_key), random.Random(index)
        for number in count(index):
            if time.monotonic() > until:
                return
            kind = "extraction" if number % (EXTRACTIONS_PER_FEEDBACK + 1) else "feedback"
            started = time.monotonic()
            try:
                if kind == "extraction":
                    own.extract(rng.choice(documents).id)
                else:
                    jobs.append(_feed_back(own, documents[index], number // (EXTRACTIONS_PER_FEEDBACK + 1)))
            except ApiError as error:
                errors[f"{kind} {error.status_code}"] += 1
            except httpx.HTTPError as error:
                errors[f"{kind} {type(error).__name__}"] += 1
            taken[kind].append(time.monotonic() - started)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(play, range(clients)))
    cpu_seconds = time.process_time() - cpu_before
    memory = measure_memory(stack)
    answers = Counter(_wait_for_answer(client, job_id) for job_id in dict.fromkeys(jobs))
    summary = {kind: summarise(some) for kind, some in taken.items()}
    requests_per_second = round(sum(map(len, taken.values())) / seconds, 1)
    print_seconds(f"{clients} clients, {requests_per_second} requests per second", summary)
    print(f"errors {dict(errors)}, jobs {dict(answers)}, MiB {memory}", flush=True)
    return {
        "seconds": summary,
        "requests_per_second": requests_per_second,
        "errors": dict(errors),
        "jobs": dict(answers),
        "memory_mib": memory,
        "generator_cpu_share": round(cpu_seconds / seconds, 2),
    }


def _wait_for_answer(client: ContractReviewer, job_id: str) -> str:
    with suppress(TimeoutError):
        return str(client.wait_for_job(job_id, timeout_seconds=600)["status"])
    return "lost"


def _compare_during_training(
    stack: Stack, client: ContractReviewer, documents: list[ReviewedDocument], extractions: int
) -> dict[str, Any]:
    """Time one client's extractions of new and of known documents, alternately alone and during training."""
    for document in documents:
        client.extract(document.id)
    taken: dict[str, list[float]] = {f"{kind}, {when}": [] for kind in ("new", "known") for when in WHEN}
    runs, seconds = dict.fromkeys(WHEN, 0), dict.fromkeys(WHEN, 0.0)

    def extract(when: str) -> None:
        for number in range(extractions // ROUNDS):
            for kind, document in (
                ("new", upload_generated(client, CHARACTERS)),
                ("known", documents[number % len(documents)]),
            ):
                started = time.monotonic()
                client.extract(document.id)
                taken[f"{kind}, {when}"].append(time.monotonic() - started)

    for _ in range(ROUNDS):
        extract(ALONE)
        for when, work in ((TRAINING, partial(extract, TRAINING)), (ALONE, partial(time.sleep, TRAINING_SECONDS))):
            started = time.monotonic()
            with _training(stack, documents) as count_runs:
                work()
                seconds[when] += time.monotonic() - started
                runs[when] += count_runs()
    summary = {name: summarise(some) for name, some in taken.items()}
    ratios = {
        kind: round(summary[f"{kind}, {TRAINING}"]["p95"] / summary[f"{kind}, {ALONE}"]["p95"], 2)
        for kind in ("new", "known")
    }
    runs_per_minute = {when: round(60 * runs[when] / seconds[when], 1) for when in runs}
    print_seconds("Extraction by one client, alone and during training", summary)
    print(
        f"p95 during training / alone: {ratios}; runs per minute during extraction and alone: {runs_per_minute}",
        flush=True,
    )
    return {"seconds": summary, "p95_ratios": ratios, "runs_per_minute": runs_per_minute}


@contextmanager
def _training(stack: Stack, documents: list[ReviewedDocument]) -> Iterator[Callable[[], int]]:
    """Keep one run active and another waiting until the block ends; yield a function that counts the finished runs."""
    stop, finished = Event(), set[str]()

    def keep_going() -> None:
        own = ContractReviewer(stack.api_url, stack.api_key)
        while not stop.is_set():
            left_out, index = divmod(next(_numbers), len(documents))
            job = own.wait_for_job(_feed_back(own, documents[index], left_out))
            finished.add(job["outcome"]["flow_run_id"])

    with ThreadPoolExecutor(2) as pool:
        feeders = [pool.submit(keep_going) for _ in range(2)]
        while not finished and not any(feeder.done() for feeder in feeders):
            time.sleep(0.1)
        finished.clear()
        yield lambda: len(finished)
        stop.set()
        for feeder in feeders:
            feeder.result()


if __name__ == "__main__":
    main()
