"""The processes of `deploy/compose.yaml`, two APIs and two workers: the loop, and machines that die or are replaced."""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import httpx
import pytest

from demo.client import ContractReviewer, ReviewedDocument
from demo.contract_generator import generate_contract
from registry.database import list_revisions
from tests.faults import wait_until
from tests.team_installation import RELEASE, TeamInstallation, find_obstacle, run_team_installation

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("port 8333")]  # SeaweedFS wants it on every address
APIS, WORKERS = ("api-1", "api-2"), ("worker-1", "worker-2")
_seeds = count(5000)


@pytest.fixture(scope="module")
def team() -> Iterator[TeamInstallation]:
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    started = time.monotonic()
    with run_team_installation() as team, pytest.MonkeyPatch.context() as patch:
        say(f"{len(team.machines)} services are up after {time.monotonic() - started:.0f} s")
        patch.setenv("SSL_CERT_FILE", str(team.find_certificate()))
        yield team


@pytest.fixture(scope="module")
def proxy(team: TeamInstallation) -> ContractReviewer:
    return ContractReviewer(team.proxy_url, team.api_key)


@pytest.fixture(scope="module")
def apis(team: TeamInstallation) -> list[ContractReviewer]:
    return [ContractReviewer(team.get_url(name, 8000), team.api_key) for name in APIS]


@pytest.fixture
def http(team: TeamInstallation) -> Iterator[httpx.Client]:
    with connect(team, team.proxy_url) as http:
        yield http


def connect(team: TeamInstallation, url: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {team.api_key}"}, timeout=60)


def upload(client: ContractReviewer, contracts: int = 1) -> ReviewedDocument:
    """Upload a PDF, or a text of several contracts of which the first is reviewed."""
    contract, *more = (generate_contract(next(_seeds)) for _ in range(contracts))
    if not more:
        return client.upload(contract.filename, contract.pdf, contract.text, contract.spans)
    text = "\n\n".join([contract.text, *(each.text for each in more)])
    return client.upload("contract.txt", text.encode(), text, contract.spans)


def check_served(apis: list[ContractReviewer], document: ReviewedDocument, *jobs: dict[str, Any]) -> None:
    """Check that these jobs are completed, and that both APIs serve the newest version that they made."""
    assert {job["status"] for job in jobs} == {"completed"}, jobs
    promoted = [job["outcome"]["challenger"]["version"] for job in jobs if job["outcome"]["decision"] == "promoted"]
    first, second = (api.extract(document.id) for api in apis)
    assert first == second
    assert first[0] == max(promoted, key=int)
    assert first[1]


def say(text: str) -> None:
    """Print what `pytest -s` shows, for the record."""
    sys.stdout.write(f"\n[team] {text}")


class Traffic:
    """What clients have got from the proxy: the jobs of accepted feedback, and the answers that made them try again."""

    def __init__(self, team: TeamInstallation) -> None:
        self.accepted: list[str] = []
        self.extractions, self.tried_again = 0, Counter[str]()
        self._team, self._stopped = team, Event()

    @contextmanager
    def flow(self, documents: list[ReviewedDocument]) -> Iterator[None]:
        """Have a client for each document extract it and send feedback on it, in turn, until the block ends."""
        with ThreadPoolExecutor(len(documents)) as pool:
            senders = [pool.submit(self._send, document) for document in documents]
            try:
                yield
            finally:
                self._stopped.set()
        for sender in senders:
            sender.result()

    def _send(self, document: ReviewedDocument) -> None:
        with connect(self._team, self._team.proxy_url) as http:
            for number in count():
                if self._stopped.wait(1):
                    return
                self._ask(http, http.build_request("GET", f"/documents/{document.id}/entities"))
                self.extractions += 1
                left_out = number % len(document.spans)
                body = {"annotations": document.annotations[:left_out] + document.annotations[left_out + 1 :]}
                path, key = f"/documents/{document.id}/feedback", {"Idempotency-Key": uuid4().hex}
                answer = self._ask(http, http.build_request("POST", path, json=body, headers=key))
                self.accepted.append(answer.json()["job_id"])

    def _ask(self, http: httpx.Client, request: httpx.Request) -> httpx.Response:
        while True:
            try:
                answer = http.send(request)
            except httpx.TransportError as error:
                self.tried_again[f"{request.method} {type(error).__name__}"] += 1
            else:
                if answer.is_success:
                    return answer
                self.tried_again[f"{request.method} {answer.status_code} {answer.text[:150]}"] += 1
            time.sleep(0.2)


def test_correction_over_the_proxy_is_served_by_both_apis(
    proxy: ContractReviewer, apis: list[ContractReviewer]
) -> None:
    document = upload(proxy)
    started = time.monotonic()
    job = proxy.wait_for_job(proxy.feed_back(document))
    check_served(apis, document, job)
    say(f"both APIs serve version {job['outcome']['challenger']['version']} {time.monotonic() - started:.1f} s later")


def test_lines_of_an_api_and_of_a_worker_are_joined_by_the_jobs_id(
    team: TeamInstallation, proxy: ContractReviewer
) -> None:
    job_id = proxy.feed_back(upload(proxy))
    proxy.wait_for_job(job_id)

    def list_lines(names: tuple[str, ...]) -> list[str]:
        return [line for name in names for line in team[name].log.read_text().splitlines() if job_id in line]

    def find_first(names: tuple[str, ...]) -> dict[str, Any]:
        lines: Iterator[dict[str, Any]] = map(json.loads, list_lines(names))
        found = next(line for line in lines if line.get("job_id") == job_id)
        say(json.dumps(found))
        return found

    assert find_first(APIS)["request_id"]
    assert find_first(WORKERS)["flow_run_id"]


def test_what_one_api_stored_the_other_reads(team: TeamInstallation, apis: list[ContractReviewer]) -> None:
    contract = generate_contract(next(_seeds))
    document = apis[0].upload(contract.filename, contract.pdf, contract.text, contract.spans)
    with connect(team, team.get_url("api-2", 8000)) as second:
        assert second.get(f"/documents/{document.id}/content").content == contract.pdf
        assert second.get(f"/documents/{document.id}/text").text == document.text
        assert second.get(f"/documents/{document.id}/pages/1/image").headers["Content-Type"] == "image/jpeg"


def test_two_feedbacks_at_once_over_both_apis_are_each_learned_once(
    apis: list[ContractReviewer], http: httpx.Client
) -> None:
    documents = [upload(api) for api in apis]
    with ThreadPoolExecutor(2) as pool:
        sent = pool.map(ContractReviewer.feed_back, apis, documents)
        jobs = [api.wait_for_job(job_id) for api, job_id in zip(apis, sent, strict=True)]
    check_served(apis, documents[0], *jobs)
    runs = {job["outcome"]["flow_run_id"] for job in jobs}
    versions = [item["version"] for item in http.get("/models").json()["items"] if item["flow_run_id"] in runs]
    answered = [job_id for version in versions for job_id in http.get(f"/models/{version}").json()["job_ids"]]
    assert sorted(answered) == sorted(job["job_id"] for job in jobs)
    say(f"two feedbacks at once: {len(runs)} run(s)")


def test_run_on_a_worker_machine_that_dies_is_taken_over_by_the_other(
    team: TeamInstallation, proxy: ContractReviewer, apis: list[ContractReviewer]
) -> None:
    document, workers = upload(proxy, contracts=5), [team[name] for name in WORKERS]
    job_id = proxy.feed_back(document)
    wait_until(lambda: any(job_id in worker.log.read_text() for worker in workers))  # its run has claimed the job
    dying = next(worker for worker in workers if job_id in worker.log.read_text())
    dying.destroy()
    died = time.monotonic()
    assert proxy.read_job(job_id)["outcome"] is None
    check_served(apis, document, proxy.wait_for_job(job_id, timeout_seconds=240))  # the launcher alone takes longer
    say(f"{dying.name} died during a run; its feedback was served {time.monotonic() - died:.0f} s later")
    dying.start()
    dying.wait()


def test_api_machine_that_dies_loses_no_accepted_feedback_and_the_proxy_asks_the_other(
    team: TeamInstallation, proxy: ContractReviewer, apis: list[ContractReviewer]
) -> None:
    documents, seen, dying = [upload(proxy, contracts=2) for _ in range(4)], Traffic(team), team["api-1"]
    with seen.flow(documents):
        wait_until(lambda: len(seen.accepted) >= 4)
        dying.destroy()
        at_death = len(seen.accepted)
        wait_until(lambda: len(seen.accepted) >= at_death + 12)
        printed = len(dying.log.read_text())
        dying.start()
        wait_until(lambda: "/feedback" in dying.log.read_text()[printed:])
    assert seen.tried_again.total() <= len(documents)
    say(f"api-1 died: {len(seen.accepted)} feedbacks accepted, tried again {dict(seen.tried_again)}")
    check_served(apis, documents[0], *map(proxy.wait_for_job, seen.accepted))


def test_uploads_are_refused_while_the_store_hangs_or_is_away_and_the_rest_goes_on(
    team: TeamInstallation, proxy: ContractReviewer, apis: list[ContractReviewer], http: httpx.Client
) -> None:
    document, contract, store = upload(proxy, contracts=2), generate_contract(next(_seeds)), team["s3"]
    file = {"file": (contract.filename, contract.pdf)}

    def check_refused() -> None:
        asked = time.monotonic()
        refused = http.post("/documents", files=file)
        say(f"upload refused after {time.monotonic() - asked:.1f} s: {refused.status_code} {refused.json()['detail']}")
        assert refused.status_code == 503
        assert "document store" in refused.json()["detail"]
        assert http.get(f"/documents/{document.id}/text").text == document.text
        assert http.get(f"/documents/{document.id}/entities").is_success

    with store.paused():
        check_refused()
        job_id = proxy.feed_back(document)
    check_served(apis, document, proxy.wait_for_job(job_id))
    store.stop()
    check_refused()
    store.start()
    wait_until(lambda: http.post("/documents", files=file).is_success, 30)


def test_apis_and_workers_are_replaced_by_a_release_with_a_newer_schema_while_all_requests_succeed(
    team: TeamInstallation, proxy: ContractReviewer, apis: list[ContractReviewer], tmp_path: Path
) -> None:
    release = copy_release(tmp_path)
    documents, seen = [upload(proxy, contracts=2) for _ in range(2)], Traffic(team)
    with seen.flow(documents):
        migration = team["migrate"].run("contract-feedback", "migrate", release=release)
        assert migration.returncode == 0, migration.stderr
        refused = team["migrate"].run("contract-feedback", "api", "--port", "8000")
        wait_until(lambda: len(seen.accepted) >= 4)
        for machine in (team[name] for name in (*WORKERS, *APIS)):
            stopped, started = machine.stop(), time.monotonic()
            machine.release = release
            machine.start()
            machine.wait()
            say(f"{machine.name} stopped after {stopped:.1f} s, was ready {time.monotonic() - started:.1f} s later")
    say(f"{len(seen.accepted)} feedbacks, {seen.extractions} extractions; tried again {dict(seen.tried_again)}")
    assert not seen.tried_again
    check_served(apis, documents[0], *map(proxy.wait_for_job, seen.accepted))
    say(f"the old release: {refused.stderr.strip()}")
    assert refused.returncode
    assert "which this release does not know" in refused.stderr
    assert "Traceback" not in refused.stderr


def copy_release(folder: Path) -> Path:
    """Copy the code as a newer release, which has one more migration."""
    for package in RELEASE.glob("*/__init__.py"):
        shutil.copytree(package.parent, folder / package.parent.name)
    before = list_revisions()[0]
    (folder / f"registry/migrations/versions/{before}_more.py").write_text(f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{before}_more", "{before}", None, None


def upgrade() -> None:
    op.add_column("job", sa.Column("more", sa.String(), nullable=True))
""")
    return folder
