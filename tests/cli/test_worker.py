"""`contract-feedback worker` on a Prefect server of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Cancelling
from sqlalchemy import create_engine, text

from cli.installation import LOOPBACK, answers, reserve_port
from cli.supervision import Supervisor
from embeddinggemma_feasibility.encoders import Encoder
from registry.database import list_revisions, migrate_database
from registry.settings import Settings
from tests.faults import wait_until

pytestmark = pytest.mark.slow

PROBES = Path(__file__).parents[1] / "flows/probes"


@dataclass
class Servers:
    """A Prefect server with the deployment of the probe, and an environment for workers."""

    processes: Supervisor
    prefect: SyncPrefectClient
    probe: UUID
    url: str
    environment: dict[str, str]

    def start(self, report: Path, hold: bool = False) -> UUID:
        parameters = {"report": str(report), "hold": hold}
        return self.prefect.create_flow_run_from_deployment(self.probe, parameters=parameters).id

    def read_state(self, run: UUID) -> State[Any]:
        state = self.prefect.read_flow_run(run).state
        assert state
        return state

    def wait_for_state(self, run: UUID, name: str) -> None:
        wait_until(lambda: self.read_state(run).name == name)

    def set_revision(self, revision: str) -> None:
        engine = create_engine(self.environment["CONTRACT_FEEDBACK_DATABASE_URL"])
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        engine.dispose()


@dataclass
class Unit:
    """A process of `contract-feedback worker`."""

    process: subprocess.Popen[bytes]
    health_url: str
    log: Path

    def read_health(self) -> tuple[int, str]:
        try:
            response = httpx.get(self.health_url, timeout=10)
        except httpx.TransportError:
            return 0, ""
        return response.status_code, response.text

    def wait_for_health(self, status: int, words: str) -> None:
        wait_until(lambda: self.read_health()[0] == status and words in self.read_health()[1], 300)

    def read_log(self) -> str:
        """Return what it printed, without the frame around a refused command."""
        return " ".join(self.log.read_text().replace("│", "").split())

    def find_child(self, module: str) -> int:
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [int(pid) for file in children for pid in file.read_text().split()]
        return next(pid for pid in pids if module in Path(f"/proc/{pid}/cmdline").read_text())


StartUnit = Callable[..., Unit]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Encoder) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    database_url = f"sqlite:///{folder}/test.db"
    migrate_database(Settings(database_url=database_url))
    with ExitStack() as opened:
        port = opened.enter_context(reserve_port(LOOPBACK, 0)).getsockname()[1]
        url = f"http://{LOOPBACK}:{port}/api"
        environment = os.environ | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": url,
            "PREFECT_CLIENT_MAX_RETRIES": "0",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",  # three misses, and Prefect's runner gives up on cancelled runs
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "CONTRACT_FEEDBACK_DATABASE_URL": database_url,
            "CONTRACT_FEEDBACK_ENCODER": tiny_encoder.name,
            "CONTRACT_FEEDBACK_CACHE_FOLDER": str(folder / "cache"),
        }
        (folder / "logs").mkdir()
        processes = Supervisor(folder, environment, folder / "logs")
        opened.callback(processes.stop)
        processes.start("prefect", "cli.prefect_server", "--host", LOOPBACK, "--port", str(port))
        processes.wait("prefect", answers(f"{url}/health"), 120)
        deploy = [sys.executable, "-m", "cli.command_line", "deploy"]
        subprocess.run(deploy, cwd=folder, env=environment, check=True)
        prefect = opened.enter_context(SyncPrefectClient(url))
        probe = prefect.create_deployment(
            prefect.create_flow_from_name("probe"),
            "probe",
            entrypoint="probe.py:probe",
            path=str(PROBES),
            work_pool_name="contract-feedback",
            job_variables=prefect.read_deployment_by_name("learn-from-feedback/feedback").job_variables,
        )
        yield Servers(processes, prefect, probe, url, environment)


@contextmanager
def started(servers: Servers, folder: Path, **environment: str) -> Iterator[Unit]:
    with reserve_port(LOOPBACK, 0) as reserved:
        port = str(reserved.getsockname()[1])
    command = [sys.executable, "-m", "cli.command_line", "worker", "--port", port]
    log = folder / "worker.log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=folder, env=servers.environment | environment, stderr=output) as process,
    ):
        try:
            yield Unit(process, f"http://{LOOPBACK}:{port}/health", log)
        finally:
            process.kill()


@contextmanager
def ready(servers: Servers, folder: Path) -> Iterator[Unit]:
    """Start a unit without a PATH in which to look up an interpreter, and wait until it takes runs."""
    with started(servers, folder, PATH="/nowhere", CONTRACT_FEEDBACK_DRAIN_SECONDS="60") as unit:
        unit.wait_for_health(200, "ok")
        yield unit


@pytest.fixture
def unit(servers: Servers, tmp_path: Path) -> Iterator[Unit]:
    """A unit that the test may end."""
    with ready(servers, tmp_path) as unit:
        yield unit


@pytest.fixture(scope="module")
def lasting_unit(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unit]:
    """A unit that takes runs again at the end of each test: a start takes many seconds."""
    with ready(servers, tmp_path_factory.mktemp("lasting-unit")) as unit:
        yield unit


def wait_for_body(report: Path) -> dict[str, Any]:
    wait_until(lambda: report.exists() and bool(report.read_text()))
    return dict(json.loads(report.read_text()))


def is_gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_sigterm_lets_the_run_under_way_end_and_takes_no_other(servers: Servers, unit: Unit, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run = servers.start(report, hold=True)
    assert wait_for_body(report)["parent"] == unit.find_child("flows.warm.parent")
    unit.process.terminate()
    unit.wait_for_health(503, "is being stopped")
    other = servers.start(tmp_path / "other.json")
    time.sleep(3)
    assert unit.process.poll() is None
    report.with_suffix(".release").touch()
    assert unit.process.wait(20) == 0
    assert (servers.read_state(run).name, servers.read_state(other).name) == ("Completed", "Scheduled")
    assert report.with_suffix(".ended").exists()
    servers.prefect.delete_flow_run(other)


def test_run_is_crashed_at_the_time_limit(servers: Servers, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with started(servers, tmp_path, CONTRACT_FEEDBACK_DRAIN_SECONDS="2") as unit:
        unit.wait_for_health(200, "ok")
        run = servers.start(report, hold=True)
        pid = wait_for_body(report)["pid"]
        unit.process.terminate()
        assert unit.process.wait(15) == 0
        assert is_gone(pid)
        assert not report.with_suffix(".ended").exists()
        state = servers.read_state(run)
        assert (state.name, state.message) == ("Crashed", "The worker was stopped while this run was under way")


def test_second_sigterm_ends_at_once(servers: Servers, unit: Unit, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run = servers.start(report, hold=True)
    pid = wait_for_body(report)["pid"]
    unit.process.terminate()
    unit.wait_for_health(503, "is being stopped")
    unit.process.terminate()
    assert unit.process.wait(15) == 0
    assert is_gone(pid)
    assert servers.read_state(run).name == "Crashed"


def test_nothing_is_left_behind_when_the_unit_is_killed(servers: Servers, unit: Unit, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run = servers.start(report, hold=True)
    pids = [wait_for_body(report)["pid"], unit.find_child("flows.warm.parent"), unit.find_child("flows.warm.worker")]
    unit.process.kill()
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), 20)  # type: ignore[misc]
    servers.wait_for_state(run, "Crashed")


def test_killed_process_is_restarted_and_health_tells(servers: Servers, lasting_unit: Unit, tmp_path: Path) -> None:
    for module, words in (("flows.warm.parent", "has not loaded"), ("flows.warm.worker", "is not running")):
        os.kill(lasting_unit.find_child(module), signal.SIGKILL)
        lasting_unit.wait_for_health(503, words)
        lasting_unit.wait_for_health(200, "ok")
    report = tmp_path / "report.json"
    servers.wait_for_state(servers.start(report), "Completed")
    assert wait_for_body(report)["parent"] == lasting_unit.find_child("flows.warm.parent")


def test_worker_outlives_an_outage_of_prefect_and_its_runs_can_be_cancelled_afterwards(
    servers: Servers, lasting_unit: Unit, tmp_path: Path
) -> None:
    worker = lasting_unit.find_child("flows.warm.worker")
    process = servers.processes.release("prefect")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lasting_unit.wait_for_health(503, "Prefect does not answer")
    wait_until(lambda: "flow run cancellation will fail" in lasting_unit.read_log())
    servers.processes.start("prefect")
    servers.processes.wait("prefect", answers(f"{servers.url}/health"), 120)
    lasting_unit.wait_for_health(200, "ok")
    servers.wait_for_state(servers.start(tmp_path / "report.json"), "Completed")
    assert lasting_unit.find_child("flows.warm.worker") == worker
    run = servers.start(tmp_path / "held.json", hold=True)
    pid = wait_for_body(tmp_path / "held.json")["pid"]
    servers.prefect.set_flow_run_state(run, Cancelling())
    servers.wait_for_state(run, "Cancelled")
    assert is_gone(pid)


def test_no_run_is_taken_while_the_database_has_the_schema_of_a_later_release(
    servers: Servers, lasting_unit: Unit, tmp_path: Path
) -> None:
    servers.set_revision("0999")
    try:
        run = servers.start(tmp_path / "report.json")
        lasting_unit.wait_for_health(503, "revision 0999, which this release does not know")
        assert servers.read_state(run).name == "Scheduled"
    finally:
        servers.set_revision(list_revisions()[0])
    servers.wait_for_state(run, "Completed")
    lasting_unit.wait_for_health(200, "ok")


def test_worker_waits_for_a_database_that_is_not_migrated_yet(servers: Servers, tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path}/new.db"
    with started(servers, tmp_path, CONTRACT_FEEDBACK_DATABASE_URL=database_url) as unit:
        unit.wait_for_health(503, "run `contract-feedback migrate`")
        migrate_database(Settings(database_url=database_url))
        unit.wait_for_health(200, "ok")
        unit.process.terminate()
        assert unit.process.wait(20) == 0


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PREFECT_API_URL": ""}, "Set PREFECT_API_URL"),
        ({"CONTRACT_FEEDBACK_ENCODER": "/nowhere"}, "runs did not start; its last lines, above, say why"),
    ],
)
def test_worker_that_cannot_start_says_why(
    servers: Servers, tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    with started(servers, tmp_path, **environment) as unit:
        assert unit.process.wait(120) == 2
        assert sentence in unit.read_log()


def test_worker_on_a_newer_schema_or_a_taken_port_says_so(servers: Servers, tmp_path: Path) -> None:
    servers.set_revision("0999")
    try:
        with started(servers, tmp_path) as unit:
            assert unit.process.wait(120) == 2
            assert "revision 0999, which this release does not know" in unit.read_log()
            assert "Traceback" not in unit.read_log()
    finally:
        servers.set_revision(list_revisions()[0])
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [sys.executable, "-m", "cli.command_line", "worker", "--port", port]
        refused = subprocess.run(
            command, cwd=tmp_path, env=servers.environment, capture_output=True, text=True, check=False
        )
    assert "The health check cannot listen on" in refused.stderr
    assert refused.returncode == 2
