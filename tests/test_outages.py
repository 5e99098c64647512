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
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.events.schemas.automations import AutomationCore

from local.client import ReviewedDocument, ReviewerClient
from local.contract_generator import generate_contract
from local.processes import ANY_PORTS, LOOPBACK, WORKER, Stack, answers, free_port, run_stack
from registry.models import ModelRegistry
from registry.settings import Settings
from tests.breaking import kill, start_again, wait_until


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
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
        yield stack


@pytest.fixture
def silent_runs_crash_soon(broken: Stack) -> Iterator[None]:
    """Crash a silent run after 10 s, shorter than some living ones are silent."""
    automations = json.loads((Path(__file__).parent.parent / "automations.json").read_text())
    with SyncPrefectClient(f"{broken.prefect_url}/api") as prefect:
        made = []
        for automation in automations:
            automation["name"] += " soon"
            automation["trigger"]["within"] = 10
            made.append(prefect.create_automation(AutomationCore.model_validate(automation)))
        yield
        for automation_id in made:
            prefect.delete_automation(automation_id)


@pytest.fixture(scope="module")
def reviewer(broken: Stack) -> ReviewerClient:
    return ReviewerClient(broken.api_url, broken.api_key)


@pytest.fixture(scope="module")
def http(broken: Stack) -> httpx.Client:
    return httpx.Client(base_url=broken.api_url, headers={"Authorization": f"Bearer {broken.api_key}"}, timeout=120)


@pytest.fixture(scope="module")
def accepted() -> list[str]:
    """The jobs of all feedback that was answered 202."""
    return []


@pytest.fixture(scope="module")
def to_teach(reviewer: ReviewerClient, http: httpx.Client) -> Iterator[ReviewedDocument]:
    """Generated contracts, uploaded one by one as plain text, without those that are held out."""
    return filter(lambda document: not http.get(f"/documents/{document.id}").json()["held_out"], upload_all(reviewer))


def upload_all(reviewer: ReviewerClient) -> Iterator[ReviewedDocument]:
    for seed in count(1000):
        contract = generate_contract(seed)
        yield reviewer.upload(f"{contract.filename}.txt", contract.text.encode(), contract.text, contract.spans)


def break_after(stack: Stack, call: str, name: str, dies_itself: bool) -> subprocess.Popen[bytes]:
    """Have the next run kill a process, which is returned, and itself or not, when `call` has returned."""
    process = stack.processes.let_end(name)
    order = {"call": call, "process_group": process.pid, "dies_itself": dies_itself}
    file = stack.folder / "order.json"
    file.with_suffix(".new").write_text(json.dumps(order))
    file.with_suffix(".new").rename(file)
    return process


def describe(document: ReviewedDocument) -> dict[str, Any]:
    return {
        "annotations": [
            {"type": span.type, "value": document.text[span.start : span.end], "start": span.start, "end": span.end}
            for span in document.spans
        ]
    }


def check_models(stack: Stack, http: httpx.Client) -> None:
    """See that every version is whole, and that one of them is the champion."""
    registry = ModelRegistry(Settings(mlflow_tracking_uri=stack.mlflow_url))
    versions = http.get("/models").raise_for_status().json()
    assert sum(version["is_champion"] for version in versions) == 1
    for version in versions:
        registry.load_tagger(version["version"])


def find_champion(http: httpx.Client) -> str:
    return next(version["version"] for version in http.get("/models").json() if version["is_champion"])


@contextmanager
def no_file_larger(stack: Stack, name: str, size: int) -> Iterator[None]:
    """Let a process and its children write no file beyond a size, as if the disk were full there."""
    session = stack.processes[name].pid
    members = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    members = [pid for pid in members if os.getsid(pid) == session]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in members}
    for pid, (_, hard) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    yield
    for pid, limit in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


def test_full_disk_at_the_artifact_leaves_the_champion_and_the_feedback_is_learned_when_there_is_room(
    broken: Stack,
    reviewer: ReviewerClient,
    http: httpx.Client,
    to_teach: Iterator[ReviewedDocument],
    accepted: list[str],
) -> None:
    accepted.append(reviewer.feed_back(next(to_teach)))
    reviewer.wait_for_job(accepted[0])
    champion = find_champion(http)
    with closing(sqlite3.connect(broken.folder / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")  # what is written to it goes to a small file first
    smaller_than_a_model = min(file.stat().st_size for file in broken.folder.glob("mlflow/**/*.safetensors")) - 1
    with no_file_larger(broken, "mlflow", smaller_than_a_model):
        job_id = reviewer.feed_back(next(to_teach))
        accepted.append(job_id)
        wait_until(lambda: "File too large" in (broken.folder / "logs/mlflow.log").read_text())
        assert reviewer.read_job(job_id)["outcome"] is None
        assert find_champion(http) == champion
    assert reviewer.wait_for_job(job_id)["status"] == "completed"
    check_models(broken, http)


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
def test_worker_killed_at_a_stage_loses_nothing_and_frees_its_place(
    broken: Stack,
    reviewer: ReviewerClient,
    http: httpx.Client,
    to_teach: Iterator[ReviewedDocument],
    accepted: list[str],
    call: str,
) -> None:
    worker = break_after(broken, call, "worker", dies_itself=True)
    job_id = reviewer.feed_back(next(to_teach))
    accepted.append(job_id)
    worker.wait(120)
    start_again(broken, "worker")
    assert reviewer.wait_for_job(job_id)["status"] == "completed"
    next_job = reviewer.feed_back(next(to_teach))
    accepted.append(next_job)
    assert reviewer.wait_for_job(next_job)["status"] == "completed"
    check_models(broken, http)


def test_api_killed_between_commit_and_answer_has_the_feedback_and_the_same_request_again_gives_its_job(
    broken: Stack, reviewer: ReviewerClient, http: httpx.Client, to_teach: Iterator[ReviewedDocument]
) -> None:
    document, before = next(to_teach), http.get("/jobs").json()["total"]
    port = free_port(LOOPBACK, 0)
    script = str(Path(__file__).parent / "api/probes/dying_api.py")
    dying = subprocess.Popen([sys.executable, script, str(port)], cwd=broken.folder, env=broken.environment)
    wait_until(answers(f"http://127.0.0.1:{port}/health"))
    request = {"json": describe(document), "headers": {**http.headers, "Idempotency-Key": "again"}}
    with pytest.raises(httpx.TransportError):
        httpx.post(f"http://127.0.0.1:{port}/documents/{document.id}/feedback", **request)
    assert dying.wait(10) == -signal.SIGKILL
    job_id = http.post(f"/documents/{document.id}/feedback", **request).raise_for_status().json()["job_id"]
    assert http.get("/jobs").json()["total"] == before + 1
    assert reviewer.wait_for_job(job_id)["status"] == "completed"


def test_prefect_killed_for_a_minute_while_feedback_comes_in_loses_none(
    broken: Stack, reviewer: ReviewerClient, to_teach: Iterator[ReviewedDocument], accepted: list[str]
) -> None:
    server = break_after(broken, "flows.feedback.fine_tune", "prefect", dies_itself=False)
    jobs = [reviewer.feed_back(next(to_teach))]
    server.wait(120)
    died = time.monotonic()
    while time.monotonic() < died + 60:
        jobs.append(reviewer.feed_back(next(to_teach)))
        time.sleep(6)
    start_again(broken, "prefect")
    accepted += jobs
    assert {reviewer.wait_for_job(job)["status"] for job in jobs} == {"completed"}


def test_mlflow_away_at_registration_for_longer_than_the_run_tries_again_loses_nothing(
    broken: Stack,
    reviewer: ReviewerClient,
    http: httpx.Client,
    to_teach: Iterator[ReviewedDocument],
    accepted: list[str],
) -> None:
    server = break_after(broken, "flows.feedback.evaluate", "mlflow", dies_itself=False)
    job_id = reviewer.feed_back(next(to_teach))
    accepted.append(job_id)
    server.wait(120)
    time.sleep(40)
    start_again(broken, "mlflow")
    assert reviewer.wait_for_job(job_id)["status"] == "completed"
    check_models(broken, http)


def test_feedback_is_refused_while_the_database_is_locked_and_taken_afterwards(
    broken: Stack,
    reviewer: ReviewerClient,
    http: httpx.Client,
    to_teach: Iterator[ReviewedDocument],
    accepted: list[str],
) -> None:
    document, before = next(to_teach), http.get("/jobs").json()["total"]
    with closing(sqlite3.connect(broken.folder / "contract-feedback.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        refused = http.post(f"/documents/{document.id}/feedback", json=describe(document))
        database.execute("ROLLBACK")
    assert refused.status_code == 503
    assert "try again" in refused.json()["detail"]
    assert http.get("/jobs").json()["total"] == before
    job_id = reviewer.feed_back(document)
    accepted.append(job_id)
    assert reviewer.wait_for_job(job_id)["status"] == "completed"


def test_200_feedbacks_from_32_clients_at_once_are_all_answered(
    broken: Stack, reviewer: ReviewerClient, to_teach: Iterator[ReviewedDocument], accepted: list[str]
) -> None:
    documents = [next(to_teach) for _ in range(40)]

    def feed_back(document: ReviewedDocument) -> list[str]:
        own = ReviewerClient(broken.api_url, broken.api_key)
        return [own.feed_back(replace(document, spans=document.spans[left_out:])) for left_out in range(5)]

    with ThreadPoolExecutor(32) as pool:
        jobs = [job for some in pool.map(feed_back, documents) for job in some]
    accepted += jobs
    assert len(set(jobs)) == 200
    assert {reviewer.wait_for_job(job)["status"] for job in jobs} == {"completed"}


@pytest.mark.usefixtures("silent_runs_crash_soon")
def test_two_workers_of_which_one_is_killed_learn_each_feedback_once(
    broken: Stack,
    reviewer: ReviewerClient,
    http: httpx.Client,
    to_teach: Iterator[ReviewedDocument],
    accepted: list[str],
) -> None:
    broken.processes.start("second worker", *WORKER)
    jobs = []
    for number in range(8):
        jobs.append(reviewer.feed_back(next(to_teach)))
        time.sleep(1)
        if number == 4:
            kill(broken, "worker")
    accepted += jobs
    assert {reviewer.wait_for_job(job)["status"] for job in jobs} == {"completed"}
    start_again(broken, "worker")
    runs = [version["mlflow_run_id"] for version in http.get("/models").json()]
    assert len(runs) == len(set(runs))
    check_models(broken, http)


def test_nothing_that_was_accepted_is_without_an_answer_at_the_end(
    reviewer: ReviewerClient, accepted: list[str]
) -> None:
    assert accepted
    lost = [job for job in accepted if reviewer.read_job(job)["outcome"] is None]
    assert lost == []
