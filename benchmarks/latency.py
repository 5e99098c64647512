"""Measure the time from a correction to the version that learned it, and from the opening of an upload to its entities.

python -m benchmarks.latency [--annotated 10 1000 5000] [--feedbacks 10] [--encoder packaged]
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil, sqrt
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from pydantic import SecretStr

from benchmarks.corpus import join_generated, upload_generated
from benchmarks.results_file import print_seconds, summarise, write_results
from cli.installation import ANY_PORTS, Stack, run_stack
from demo.client import ContractReviewer, ReviewedDocument
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.representations import Representation
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig
from registry.annotations import replace_annotations
from registry.cache import build_representation_cache
from registry.database import open_session
from registry.documents import get_document
from registry.jobs import add_job, get_snapshot
from registry.outcome import Decision, Outcome
from registry.settings import Settings
from registry.tables import AnnotationBase, JobType

CHARACTERS = 17_000
_BETWEEN = "\n\n"
CLIENTS = 32
PAUSE_SECONDS = 3
QUEUE = 20
KNOWN_EXTRACTIONS = 40
_STAGES = {"load_annotations": "start_time", "fine_tune": "end_time", "evaluate": "end_time", "register": "end_time"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotated", type=int, nargs="+", default=[10, 1000, 5000])
    parser.add_argument("--feedbacks", type=int, default=10)
    parser.add_argument("--encoder", default="packaged")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"encoder": arguments.encoder, "characters": CHARACTERS, "by_annotated": {}}
    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder), ANY_PORTS, arguments.encoder) as stack:
        client = ContractReviewer(stack.api_url, stack.api_key)
        client.wait_for_job(client.feed_back(upload_generated(client, CHARACTERS)))
        number_annotated = 1
        earlier = EarlierContracts(arguments.encoder, max(arguments.annotated))
        for annotated in arguments.annotated:
            _annotate_earlier(stack, client, earlier, annotated - number_annotated)
            runs = [_time_feedback(stack, client) for _ in range(arguments.feedbacks)]
            number_annotated = annotated + len(runs)
            stages = {name: summarise([run[name] for run in runs if name in run]) for name in runs[-1]}
            results["by_annotated"][annotated] = stages
            print_seconds(f"{annotated} annotated contracts", stages)
        opened = _time_opened(client, arguments.feedbacks)
        results[f"opened_{PAUSE_SECONDS}_seconds_after_the_upload"] = opened
        print_seconds("Extractions of known contracts, and of new ones some seconds after the upload", opened)
        answers = summarise(_time_answers(stack, client))
        results[f"post_to_202_with_{CLIENTS}_clients"] = answers
        print_seconds(f"{CLIENTS} clients at once", {"202": answers})
    print(write_results("latency" if arguments.encoder == "packaged" else "latency_embeddinggemma", results))


def _time_opened(client: ContractReviewer, uploads: int) -> dict[str, dict[str, float]]:
    """Time the first extraction of contracts some seconds after their upload, and what a queue of uploads costs.

    An extraction at once waits for the encoding; one beside the queue is of a contract that was extracted before.
    """
    paused, at_once = [], []
    for _ in range(uploads):
        document = upload_generated(client, CHARACTERS)
        time.sleep(PAUSE_SECONDS)
        paused.append(_time_extraction(client, document))
        at_once.append(_time_extraction(client, upload_generated(client, CHARACTERS)))
    alone = [_time_extraction(client, document) for _ in range(KNOWN_EXTRACTIONS)]
    for _ in range(QUEUE):
        upload_generated(client, CHARACTERS)
    beside = [_time_extraction(client, document) for _ in range(KNOWN_EXTRACTIONS)]
    return {
        f"new, after {PAUSE_SECONDS} s": summarise(paused),
        "new, at once": summarise(at_once),
        "known": summarise(alone),
        f"known, beside {QUEUE} uploads": summarise(beside),
    }


def _time_extraction(client: ContractReviewer, document: ReviewedDocument) -> float:
    started = time.monotonic()
    client.extract(document.id)
    return time.monotonic() - started


class EarlierContracts:
    """Contracts of about 17,000 characters, each with a representation put together from those of its two parts.

    That is not quite what the encoder returns, at the seam, but each part is encoded once: thousands of contracts take
    minutes, not hours. The cache holds the newest ones.
    """

    def __init__(self, encoder: str, count: int) -> None:
        self._tagger = Tagger(load_encoder(encoder), (), TrainingConfig())
        parts, seeds = ceil(sqrt(count)), iter(range(10**6, 2 * 10**6))
        fronts = [join_generated(seeds, 1) for _ in range(parts)]
        rests = [join_generated(seeds, CHARACTERS - len(fronts[0][0]))[0] for _ in range(parts)]
        self._represented = {text: self._tagger.represent(text) for text in (*(front for front, _ in fronts), *rests)}
        self._contracts = (
            (fronts[number % parts], rests[(number + number // parts) % parts]) for number in range(parts**2)
        )

    def add(self, client: ContractReviewer, cache: DiskCache) -> ReviewedDocument:
        """Put the next contract's representation into the cache, and upload the contract."""
        (front, spans), rest = next(self._contracts)
        text = f"{front}{_BETWEEN}{rest}"
        first, second = self._represented[front], self._represented[rest]
        made_up = Representation(
            torch.cat([first.words, second.words + len(front) + len(_BETWEEN)]),
            torch.cat([first.features, second.features]),
            torch.cat([first.tokens, second.tokens]),
            torch.cat([first.sentences, second.sentences]),
            torch.cat([first.sentence_of_word, second.sentence_of_word + len(first.sentences)]),
        )
        cache.add(self._tagger.cache_key(text), made_up.save)
        document = client.upload("contract.txt", text.encode(), text, spans)
        if document.text != text:
            raise RuntimeError("The service reads another text than was uploaded, so its representation is not cached")
        return document


def _annotate_earlier(stack: Stack, client: ContractReviewer, earlier: EarlierContracts, number: int) -> None:
    """Add contracts as if earlier runs had learned from them, and a consolidation, so that none begins now."""
    outcome = Outcome(decision=Decision.PROMOTED, reason="Annotated by the benchmark", flow_run_id="earlier")
    environment = stack.environment
    settings = Settings(
        database_url=SecretStr(environment["CONTRACT_FEEDBACK_DATABASE_URL"]),
        cache_folder=environment["CONTRACT_FEEDBACK_CACHE_FOLDER"],
    )
    cache = build_representation_cache(settings)
    for _ in range(number):
        document = earlier.add(client, cache)
        with open_session(settings) as session:
            marked = [AnnotationBase(**annotation) for annotation in document.annotations]
            replace_annotations(session, get_document(session, document.id), marked)
            job = add_job(session, JobType.FEEDBACK, [document.id], "earlier")
            job.claiming_run_id, job.outcome = "earlier", outcome
    with open_session(settings) as session:
        job = add_job(session, JobType.CONSOLIDATION, [], "earlier")
        job.claiming_run_id, job.outcome, job.candidate_snapshot = "earlier", outcome, get_snapshot(session)


def _time_feedback(stack: Stack, client: ContractReviewer) -> dict[str, float]:
    """Return the seconds from the request to the end of each stage, in order of time."""
    document = upload_generated(client, CHARACTERS)
    version, _ = client.extract(document.id)
    started, clock = time.time(), time.monotonic()
    job_id = client.feed_back(document)
    stages = {"202": time.monotonic() - clock}
    job = client.wait_for_job(job_id)
    served_by, _ = client.extract(document.id)
    served = time.monotonic() - clock
    if job["outcome"]["decision"] == Decision.PROMOTED and served_by == version:
        raise RuntimeError(f"Version {version} is still served after job {job_id} promoted another")
    reached = _read_stages(stack, UUID(job["outcome"]["flow_run_id"]))
    names = {"load_annotations": "body", "fine_tune": "trained", "evaluate": "evaluated", "register": "registered"}
    stages |= {names[name]: moment - started for name, moment in sorted(reached, key=lambda item: item[1])}
    return stages | {"served": served}


def _read_stages(stack: Stack, run_id: UUID) -> Iterator[tuple[str, float]]:
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        for task in prefect.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))):
            name = task.name.rsplit("-", 1)[0]
            if name in _STAGES:
                yield name, getattr(task, _STAGES[name]).timestamp()


def _time_answers(stack: Stack, client: ContractReviewer) -> list[float]:
    """Return the seconds until the 202, with many clients that each send feedback three times."""
    documents = [upload_generated(client, CHARACTERS) for _ in range(CLIENTS)]

    def send(document: ReviewedDocument) -> list[float]:
        own = ContractReviewer(stack.api_url, stack.api_key)
        seconds = []
        for spans in (document.spans, document.spans[1:], document.spans):  # identical feedback returns the same job
            started = time.monotonic()
            own.feed_back(replace(document, spans=spans))
            seconds.append(time.monotonic() - started)
        return seconds

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [seconds for some in pool.map(send, documents) for seconds in some]


if __name__ == "__main__":
    main()
