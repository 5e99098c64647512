"""An installation that tests break and repair."""

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate

from cli.installation import Stack, answers
from demo.client import ContractReviewer, ReviewedDocument
from demo.contract_generator import generate_contract
from registry.models import ModelRegistry
from registry.settings import Settings


def wait_until(happened: Callable[[], bool], timeout_seconds: float = 120) -> None:
    until = time.monotonic() + timeout_seconds
    while not happened():
        assert time.monotonic() < until, f"Timed out after {timeout_seconds} s"
        time.sleep(0.1)


def connect_to_prefect(stack: Stack) -> SyncPrefectClient:
    return SyncPrefectClient(f"{stack.prefect_url}/api", auth_string=stack.environment.get("PREFECT_API_AUTH_STRING"))


def kill(stack: Stack, name: str) -> None:
    """Kill a process and its children; the supervisor does not restart it."""
    process = stack.processes.release(name)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_again(stack: Stack, name: str) -> None:
    """Start a killed process with its first command; wait until it answers if it is a server."""
    stack.processes.start(name)
    health = {
        "api": f"{stack.api_url}/health",
        "prefect": f"{stack.prefect_url}/api/health",
        "mlflow": f"{stack.mlflow_url}/health",
    }
    if name in health:
        wait_until(answers(health[name]))


class BreakableInstallation:
    """An installation, a reviewer's client of it, and the ids of the jobs that it has answered 202 with."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.processes = stack.processes
        self.folder = stack.folder
        self.reviewer = ContractReviewer(stack.api_url, stack.api_key)
        key = {"Authorization": f"Bearer {stack.api_key}"}
        self.http = httpx.Client(base_url=stack.api_url, headers=key, timeout=120)
        cache_folder = str(self.folder / "cache-of-the-tests")
        self.registry = ModelRegistry(Settings(mlflow_tracking_uri=stack.mlflow_url, cache_folder=cache_folder))
        self.accepted: list[str] = []
        self._fault_file = self.folder / "fault.json"
        self._loaded: set[str] = set()
        self._seeds = count(1000)

    def deploy_faulty_flow(self) -> None:
        """Have `kill_after` obeyed by the flow."""
        with connect_to_prefect(self.stack) as prefect:
            deployment = prefect.read_deployment_by_name("learn-from-feedback/feedback")
            faulty = DeploymentUpdate(
                path=str(Path(__file__).parent / "flows/probes"),
                entrypoint="faulty_flow.py:learn_from_feedback",
                job_variables={**deployment.job_variables, "env": {"FAULT_FILE": str(self._fault_file)}},
            )
            prefect.update_deployment(deployment.id, faulty)

    def upload(self) -> ReviewedDocument:
        """Upload a generated contract as plain text."""
        contract = generate_contract(next(self._seeds))
        return self.reviewer.upload(f"{contract.filename}.txt", contract.text.encode(), contract.text, contract.spans)

    def feed_back(self, document: ReviewedDocument | None = None) -> str:
        """Send feedback on a document, by default a new one, and return its job's id."""
        self.accepted.append(self.reviewer.feed_back(document or self.upload()))
        return self.accepted[-1]

    def check_learned(self, *jobs: str) -> None:
        """Check that these jobs complete, that every version not yet loaded loads, and that one is the champion."""
        assert {self.reviewer.wait_for_job(job)["status"] for job in jobs} == {"completed"}
        versions = self.http.get("/models").raise_for_status().json()["items"]
        assert sum(version["is_champion"] for version in versions) == 1
        for version in {version["version"] for version in versions} - self._loaded:
            self.registry.load_tagger(version)
            self._loaded.add(version)

    def check_nothing_is_lost(self) -> None:
        """Check that every accepted feedback has an outcome, and that every version still loads."""
        assert self.accepted
        assert [job for job in self.accepted if self.reviewer.read_job(job)["outcome"] is None] == []
        for version in self._loaded:
            self.registry.load_tagger(version)

    def find_champion(self) -> str:
        versions = self.http.get("/models").json()["items"]
        return str(next(version["version"] for version in versions if version["is_champion"]))

    def count_jobs(self) -> int:
        return int(self.http.get("/jobs").json()["total"])

    def kill_after(self, call: str, name: str, kills_itself: bool) -> subprocess.Popen[bytes]:
        """Let the next run kill a process, which is returned, and perhaps itself, as soon as `call` has returned."""
        process = self.processes.release(name)
        fault = {"call": call, "process_group": process.pid, "kills_itself": kills_itself}
        new = self._fault_file.with_suffix(".new")
        new.write_text(json.dumps(fault))
        new.rename(self._fault_file)
        return process

    @contextmanager
    def limit_file_size(self, name: str, size: int) -> Iterator[None]:
        """Let a process and its children write no file beyond a size, as if the disk were full."""
        session = self.processes[name].pid
        members = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        members = [pid for pid in members if os.getsid(pid) == session]
        limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in members}
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            for pid, limit in limits.items():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
