"""Measure the installation of `deploy/compose.yaml`: feedback until it is served, beside one machine, and requests.

python -m benchmarks.team [--feedbacks 20] [--seconds 10]
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, product
from pathlib import Path
from typing import Any

import httpx

from benchmarks.corpus import upload_generated
from benchmarks.load import CHARACTERS
from benchmarks.results_file import print_seconds, summarise, write_results
from cli.installation import ANY_PORTS, run_stack
from demo.client import ContractReviewer, ReviewedDocument
from tests.team_installation import TeamInstallation, run_team_installation

CLIENTS, ROUNDS = 8, 2
APIS = ("api-1", "api-2")
SIZES = {"a generated contract": 1, f"a contract of {CHARACTERS:,} characters": CHARACTERS}
POLL_SECONDS = 0.1  # each answer takes time of API, MLflow and database: more of them slow the run down
NO_LIMIT = {"CONTRACT_FEEDBACK_REQUESTS_PER_MINUTE": "1000000"}
_numbers = count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feedbacks", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    with run_team_installation(NO_LIMIT) as team:
        served = _compare_served(team, arguments.feedbacks, "a cache each")
    with (
        tempfile.TemporaryDirectory() as folder,
        run_team_installation(NO_LIMIT | {"CONTRACT_FEEDBACK_CACHE_FOLDER": folder}) as team,
    ):
        served |= _compare_served(team, arguments.feedbacks, "one cache")
        requests = _measure_requests(team, arguments.seconds)
    print_seconds("From a correction to the version that learned it", served)
    settings = {"characters": CHARACTERS, "clients": CLIENTS, "seconds": arguments.seconds, "rounds": ROUNDS}
    print(write_results("team", settings | {"feedback_to_served": served, "requests": requests}))


class Installation:
    """APIs that serve the same model."""

    def __init__(self, urls: list[str], key: str) -> None:
        self.key, self.urls = key, urls
        self._apis = [ContractReviewer(url, key) for url in urls]
        self._probe = self._apis[0].upload("probe.txt", b"A short text.", "A short text.", ()).id
        self.first = self._apis[0]
        self.first.wait_for_job(self.first.feed_back(upload_generated(self.first, CHARACTERS)))

    def time_feedback(self, characters: int) -> list[float]:
        """Return the seconds from a correction until each API serves the version that learned it.

        A contract whose version is not promoted is left out, and another is fed back.
        """
        document = upload_generated(self.first, characters)
        for api in self._apis:
            api.extract(document.id)
        learned: Future[int] = Future()  # the version's number, 0 if it was not promoted

        def wait_for_version(api: ContractReviewer) -> float:
            first_seen: dict[int, float] = {}
            while not (learned.done() and max(first_seen, default=0) >= learned.result()):
                first_seen.setdefault(int(api.extract(self._probe)[0] or 0), time.monotonic())
                time.sleep(POLL_SECONDS)
            return min(seen for version, seen in first_seen.items() if version >= learned.result()) - started

        with ThreadPoolExecutor(len(self._apis)) as pool:
            started = time.monotonic()
            job_id = self.first.feed_back(document)
            waiting = [pool.submit(wait_for_version, api) for api in self._apis]
            outcome = self.first.wait_for_job(job_id)["outcome"]
            learned.set_result(int(outcome["challenger"]["version"]) if outcome["decision"] == "promoted" else 0)
            seconds = [each.result() for each in waiting]
        if learned.result():
            return seconds
        print(f"Left out: {outcome['reason']}", flush=True)
        return self.time_feedback(characters)


def _compare_served(team: TeamInstallation, feedbacks: int, caches: str) -> dict[str, dict[str, float]]:
    """Time feedback on the team's machines, with these caches, and on one machine in turn."""
    taken: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder), ANY_PORTS) as stack:
        alone = Installation([stack.api_url], stack.api_key)
        together = Installation([team.get_url(name, 8000) for name in APIS], team.api_key)
        for _ in range(feedbacks):
            for size, characters in SIZES.items():
                first, last = sorted(together.time_feedback(characters))
                taken[f"{size}, {caches}, first API"].append(first)
                taken[f"{size}, {caches}, both APIs"].append(last)
                taken[f"{size}, {caches}, one machine beside it"] += alone.time_feedback(characters)
    return {name: summarise(some) for name, some in taken.items()}


def _measure_requests(team: TeamInstallation, seconds: float) -> dict[str, Any]:
    """Count the answers to clients of one API process and of two, asked directly and through the proxy."""
    os.environ["SSL_CERT_FILE"] = str(team.find_certificate())
    direct, proxy = [team.get_url(name, 8000) for name in APIS], [team.proxy_url]
    client = ContractReviewer(team.proxy_url, team.api_key)
    documents = [upload_generated(client, CHARACTERS) for _ in range(CLIENTS)]
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(ROUNDS):
        for url, document in product(direct, documents):
            ContractReviewer(url, team.api_key).extract(document.id)  # encode it
        for apis in (2, 1):
            if apis == 1:
                team["api-2"].stop()
            for way, urls in (("direct", direct[:apis]), ("through the proxy", proxy)):
                for name, ask in (("GET entities", _extract), ("POST feedback", _feed_back)):
                    with team["worker-1"].paused(), team["worker-2"].paused():  # or training takes the processors
                        measured = _count_answers(team, urls, documents, ask, seconds)
                    _wait_for_newest_job(team)
                    results.setdefault(f"{name}, {apis} API{'s' * (apis > 1)}, {way}", []).append(measured)
                    print(name, apis, way, measured, flush=True)
        team["api-2"].start()
        team["api-2"].wait()
    return results


def _extract(http: httpx.Client, document: ReviewedDocument) -> httpx.Response:
    return http.get(f"/documents/{document.id}/entities")


def _feed_back(http: httpx.Client, document: ReviewedDocument) -> httpx.Response:
    """Leave out one span, a different one each time: identical feedback returns the same job."""
    annotations = document.annotations
    del annotations[next(_numbers) % len(annotations)]
    return http.post(f"/documents/{document.id}/feedback", json={"annotations": annotations})


def _count_answers(
    team: TeamInstallation,
    urls: list[str],
    documents: list[ReviewedDocument],
    ask: Callable[[httpx.Client, ReviewedDocument], httpx.Response],
    seconds: float,
) -> dict[str, Any]:
    """Have each client ask for its document for some seconds, each API or proxy by as many clients."""
    headers = {"Authorization": f"Bearer {team.api_key}"}
    taken: list[float] = []

    def play(number: int) -> None:
        with httpx.Client(base_url=urls[number % len(urls)], headers=headers, timeout=60) as http:
            while time.monotonic() < until:
                asked = time.monotonic()
                ask(http, documents[number]).raise_for_status()
                taken.append(time.monotonic() - asked)

    until, cpu_before = time.monotonic() + seconds, time.process_time()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(play, range(CLIENTS)))
    return {
        "requests_per_second": round(len(taken) / seconds, 1),
        "seconds": summarise(taken),
        "generator_cpu_share": round((time.process_time() - cpu_before) / seconds, 2),
    }


def _wait_for_newest_job(team: TeamInstallation) -> None:
    """Wait until the newest job, and so nearly all before it, is answered."""
    headers = {"Authorization": f"Bearer {team.api_key}"}
    url = team.get_url("api-1", 8000)
    newest = httpx.get(f"{url}/jobs", params={"limit": 1}, headers=headers).raise_for_status().json()["items"][0]
    ContractReviewer(url, team.api_key).wait_for_job(newest["job_id"])


if __name__ == "__main__":
    main()
