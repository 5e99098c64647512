"""Parts of a whole installation are killed, stopped, locked and filled; no feedback that was answered 202 is lost."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate

from cli.installation import ANY_PORTS, LOOPBACK, Stack, answers, reserve_port, run_stack
from demo.client import ReviewedDocument, ReviewerClient
from demo.contract_generator import generate_contract
from feedback.automations import build_automations
from feedback.time_limits import TimeLimits
from registry.models import ModelRegistry
from registry.settings import Settings
from tests.breaking import kill, start_again, wait_until


class Installation:
    """A whole one that can be broken, a reviewer's client of it, and the jobs of all feedback it has answered 202."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.processes = stack.processes
        self.folder = stack.folder
        self.reviewer = ReviewerClient(stack.api_url, stack.api_key)
        key = {"Authorization": f"Bearer {stack.api_key}"}
        self.http = httpx.Client(base_url=stack.api_url, headers=key, timeout=120)
        self.accepted: list[str] = []
        self._seeds = count(1000)

    def upload(self) -> ReviewedDocument:
        """Upload a generated contract, as plain text, that is not held out."""
        while True:
            contract = generate_contract(next(self._seeds))
            document = self.reviewer.upload(
                f"{contract.filename}.txt", contract.text.encode(), contract.text, contract.spans
            )
            if not self.http.get(f"/documents/{document.id}").json()["held_out"]:
                return document

    def feed_back(self, document: ReviewedDocument | None = None) -> str:
        """Send feedback on a document, a new one if none is given, and return its job's id."""
        self.accepted.append(self.reviewer.feed_back(document or self.upload()))
        return self.accepted[-1]

    def check_learned(self, *jobs: str) -> None:
        """See that these jobs get an answer, and that every version is whole, and one of them the champion."""
        assert {self.reviewer.wait_for_job(job)["status"] for job in jobs} == {"completed"}
        registry = ModelRegistry(Settings(mlflow_tracking_uri=self.stack.mlflow_url))
        versions = self.http.get("/models").raise_for_status().json()
        assert sum(version["is_champion"] for version in versions) == 1
        for version in versions:
            registry.load_tagger(version["version"])

    def find_champion(self) -> str:
        return next(version["version"] for version in self.http.get("/models").json() if version["is_champion"])

    def count_jobs(self) -> int:
        return int(self.http.get("/jobs").json()["total"])

    def break_after(self, call: str, name: str, dies_itself: bool) -> subprocess.Popen[bytes]:
        """Have the next run kill a process, which is returned, and itself or not, when `call` has returned."""
        process = self.processes.release(name)
        order = {"call": call, "process_group": process.pid, "dies_itself": dies_itself}
        file = self.folder / "order.json"
        file.with_suffix(".new").write_text(json.dumps(order))
        file.with_suffix(".new").rename(file)
        return process

    @contextmanager
    def no_file_larger(self, name: str, size: int) -> Iterator[None]:
        """Let a process and its children write no file beyond a size, as if the disk were full there."""
        session = self.processes[name].pid
        members = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        members = [pid for pid in members if os.getsid(pid) == session]
        limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in members}
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        yield
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose flow breaks things when it is told to."""
    folder = tmp_path_factory.mktemp("broken")
    with run_stack(folder, ANY_PORTS) as stack, SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        deployment = prefect.read_deployment_by_name("learn-from-feedback/feedback")
        breaking = DeploymentUpdate(
            path=str(Path(__file__).parent / "flows/probes"),
            entrypoint="breaking.py:learn_from_feedback",
            job_variables={**deployment.job_variables, "env": {"BREAKING_ORDER": str(folder / "order.json")}},
        )
        prefect.update_deployment(deployment.id, breaking)
        yield Installation(stack)


@pytest.fixture
def silent_runs_crash_soon(broken: Installation) -> Iterator[None]:
    """Crash a silent run after 10 s, shorter than some living ones are silent."""
    with SyncPrefectClient(f"{broken.stack.prefect_url}/api") as prefect:
        made = []
        for automation in build_automations(TimeLimits(silence_seconds=10, start_seconds=10)):
            automation.name += " soon"
            made.append(prefect.create_automation(automation))
        yield
        for automation_id in made:
            prefect.delete_automation(automation_id)


def test_full_disk_at_the_artifact_leaves_the_champion_and_the_feedback_is_learned_when_there_is_room(
    broken: Installation,
) -> None:
    broken.check_learned(broken.feed_back())
    champion = broken.find_champion()
    with closing(sqlite3.connect(broken.folder / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")  # what is written to it goes to a small file first
    smaller_than_a_model = min(file.stat().st_size for file in broken.folder.glob("mlflow/**/*.safetensors")) - 1
    with broken.no_file_larger("mlflow", smaller_than_a_model):
        job_id = broken.feed_back()
        wait_until(lambda: "File too large" in (broken.folder / "logs/mlflow.log").read_text())
        assert broken.reviewer.read_job(job_id)["outcome"] is None
        assert broken.find_champion() == champion
    broken.check_learned(job_id)


@pytest.mark.parametrize(
    "call",
    [
        "registry.jobs.claim_jobs",
        "flows.feedback.load_annotations",
        "flows.feedback.fine_tune",
        "mlflow.MlflowClient.log_artifacts",
        "flows.feedback.save_challenger",
        "flows.feedback.evaluate",
        "mlflow.MlflowClient.create_model_version",
        "registry.models.ModelRegistry.promote",
        "registry.jobs.finish_jobs",
        "flows.feedback.promote",
    ],
)
@pytest.mark.usefixtures("silent_runs_crash_soon")
def test_worker_killed_at_a_stage_loses_nothing_and_frees_its_place(broken: Installation, call: str) -> None:
    worker = broken.break_after(call, "worker", dies_itself=True)
    job_id = broken.feed_back()
    worker.wait(120)
    start_again(broken.stack, "worker")
    broken.check_learned(job_id)
    broken.check_learned(broken.feed_back())


def test_api_killed_between_commit_and_answer_has_the_feedback_and_the_same_request_again_gives_its_job(
    broken: Installation,
) -> None:
    document, before = broken.upload(), broken.count_jobs()
    reserved = reserve_port(LOOPBACK, 0)
    port = reserved.getsockname()[1]
    script = str(Path(__file__).parent / "api/probes/dying_api.py")
    dying = subprocess.Popen([sys.executable, script, str(port)], cwd=broken.folder, env=broken.stack.environment)
    wait_until(answers(f"http://127.0.0.1:{port}/health"))
    path = f"/documents/{document.id}/feedback"
    request = {
        "json": {"annotations": document.annotations},
        "headers": {**broken.http.headers, "Idempotency-Key": "again"},
    }
    with pytest.raises(httpx.TransportError):
        httpx.post(f"http://127.0.0.1:{port}{path}", **request)
    assert dying.wait(10) == -signal.SIGKILL
    reserved.close()
    job_id = broken.http.post(path, **request).raise_for_status().json()["job_id"]
    broken.accepted.append(job_id)
    assert broken.count_jobs() == before + 1
    broken.check_learned(job_id)


def test_prefect_killed_for_a_minute_while_feedback_comes_in_loses_none(broken: Installation) -> None:
    server = broken.break_after("flows.feedback.fine_tune", "prefect", dies_itself=False)
    jobs = [broken.feed_back()]
    server.wait(120)
    died = time.monotonic()
    while time.monotonic() < died + 60:
        jobs.append(broken.feed_back())
        time.sleep(6)
    start_again(broken.stack, "prefect")
    broken.check_learned(*jobs)


def test_mlflow_away_at_registration_for_longer_than_the_run_tries_again_loses_nothing(broken: Installation) -> None:
    server = broken.break_after("flows.feedback.evaluate", "mlflow", dies_itself=False)
    job_id = broken.feed_back()
    server.wait(120)
    time.sleep(40)
    start_again(broken.stack, "mlflow")
    broken.check_learned(job_id)


def test_feedback_is_refused_while_the_database_is_locked_and_taken_afterwards(broken: Installation) -> None:
    document, before = broken.upload(), broken.count_jobs()
    with closing(sqlite3.connect(broken.folder / "contract-feedback.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        refused = broken.http.post(f"/documents/{document.id}/feedback", json={"annotations": document.annotations})
        database.execute("ROLLBACK")
    assert refused.status_code == 503
    assert "try again" in refused.json()["detail"]
    assert broken.count_jobs() == before
    broken.check_learned(broken.feed_back(document))


def test_200_feedbacks_from_32_clients_at_once_are_all_answered(broken: Installation) -> None:
    documents = [broken.upload() for _ in range(40)]

    def feed_back(document: ReviewedDocument) -> list[str]:
        own = ReviewerClient(broken.stack.api_url, broken.stack.api_key)
        return [own.feed_back(replace(document, spans=document.spans[left_out:])) for left_out in range(5)]

    with ThreadPoolExecutor(32) as pool:
        jobs = [job for some in pool.map(feed_back, documents) for job in some]
    broken.accepted += jobs
    assert len(set(jobs)) == 200
    broken.check_learned(*jobs)


@pytest.mark.usefixtures("silent_runs_crash_soon")
def test_two_workers_of_which_one_is_killed_learn_each_feedback_once(broken: Installation) -> None:
    broken.processes.start("second worker", "flows.warm.worker")
    jobs = []
    for number in range(8):
        jobs.append(broken.feed_back())
        time.sleep(1)
        if number == 4:
            kill(broken.stack, "worker")
    broken.check_learned(*jobs)
    start_again(broken.stack, "worker")
    runs = [version["mlflow_run_id"] for version in broken.http.get("/models").json()]
    assert len(runs) == len(set(runs))


def test_nothing_that_was_accepted_is_without_an_answer_at_the_end(broken: Installation) -> None:
    assert broken.accepted
    lost = [job for job in broken.accepted if broken.reviewer.read_job(job)["outcome"] is None]
    assert lost == []
