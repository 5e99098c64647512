"""Runs in the warm parent, while runs, their clients, the worker, the parent and Prefect are killed."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import torch
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.events.filters import EventFilter, EventResourceFilter
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import ResourceSpecification
from prefect.states import Cancelling

from cli.installation import Stack
from feedback.automations import build_automations
from feedback.time_limits import TimeLimits
from flows.warm.client import SOCKET_VARIABLE
from tests.faults import connect_to_prefect, kill, start_again, wait_until

pytestmark = pytest.mark.slow


@dataclass
class Run:
    """A run of the probe, and the file that it reports to when its body begins."""

    id: UUID
    report: Path
    prefect: SyncPrefectClient

    def wait_for_body(self) -> dict[str, Any]:
        wait_until(lambda: self.report.exists() and bool(self.report.read_text()))
        return dict(json.loads(self.report.read_text()))

    def release(self) -> None:
        self.report.with_suffix(".release").touch()

    def ended_in_order(self) -> bool:
        return self.report.with_suffix(".ended").exists()

    def read_state(self) -> State[Any]:
        state = self.prefect.read_flow_run(self.id).state
        assert state
        return state

    def wait_for_end(self) -> str | None:
        wait_until(lambda: self.read_state().is_final())
        return self.read_state().name


Start = Callable[..., Run]


@pytest.fixture(scope="module")
def prefect(elsewhere: Stack) -> Iterator[SyncPrefectClient]:
    with connect_to_prefect(elsewhere) as client:
        yield client


@pytest.fixture(scope="module")
def deployment(prefect: SyncPrefectClient) -> UUID:
    """The probe, with the deployment options of `prefect.yaml`, and the automations that `deploy` makes."""
    model = prefect.read_deployment_by_name("learn-from-feedback/feedback")
    probe = prefect.create_deployment(
        prefect.create_flow_from_name("probe"),
        "probe",
        entrypoint="probe.py:probe",
        path=str(Path(__file__).parent / "probes"),
        work_pool_name=model.work_pool_name,
        job_variables=model.job_variables,
        concurrency_limit=1,
        concurrency_options=model.concurrency_options,
    )
    for automation in build_automations(TimeLimits(), "probe/probe", probe):
        prefect.create_automation(automation)
    return probe


@pytest.fixture
def start(prefect: SyncPrefectClient, deployment: UUID, tmp_path: Path) -> Start:
    def start_run(hold: bool = False, **environment: str) -> Run:
        report = tmp_path / f"{uuid4()}.json"
        run = prefect.create_flow_run_from_deployment(
            deployment, parameters={"report": str(report), "hold": hold}, job_variables={"env": environment}
        )
        return Run(run.id, report, prefect)

    return start_run


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_run_is_a_child_of_the_parent_and_like_a_cold_run(elsewhere: Stack, start: Start) -> None:
    run = start(CONTRACT_FEEDBACK_MODEL_NAME="another")
    found = run.wait_for_body()
    assert found["parent"] == elsewhere.processes["runs"].pid
    assert found["threads"] == torch.get_num_threads()
    assert found["model_name"] == "another"
    assert run.wait_for_end() == "Completed"


def test_events_of_a_run_match_the_automations_of_its_deployment(
    prefect: SyncPrefectClient, deployment: UUID, start: Start
) -> None:
    trigger = build_automations(TimeLimits(), "probe/probe", deployment)[0].trigger
    assert isinstance(trigger, EventTrigger)
    related = trigger.match_related
    assert isinstance(related, ResourceSpecification)
    run = start()
    expected = {f"prefect.flow-run.{name}" for name in ("Pending", "Running", "heartbeat", "Completed")}

    def list_matching() -> set[str]:
        of_run = EventFilter(resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]))  # until now
        found = prefect.read_events(of_run, limit=50).events
        return {event.event for event in found if related.includes(event.related)}

    wait_until(lambda: expected <= list_matching(), 30)


def test_parent_has_only_its_main_thread(elsewhere: Stack) -> None:
    assert len(list(Path(f"/proc/{elsewhere.processes['runs'].pid}/task").iterdir())) == 1


def test_socket_is_closed_to_other_users(elsewhere: Stack) -> None:
    path = Path(elsewhere.environment[SOCKET_VARIABLE])
    assert (path.stat().st_mode & 0o077, path.parent.stat().st_mode & 0o077) == (0, 0)


def test_run_sees_no_state_of_the_run_before(start: Start) -> None:
    run = start()
    assert run.wait_for_end() == "Completed"
    first, second = run.wait_for_body(), start().wait_for_body()
    assert second["left_behind"] == [None, None]
    assert not set(first["random"]) & set(second["random"])


def test_run_that_waits_for_the_slot_begins_when_the_other_ends(start: Start) -> None:
    first = start(hold=True)
    first.wait_for_body()
    second = start()
    wait_until(lambda: second.read_state().name == "AwaitingConcurrencySlot")
    first.release()
    assert second.wait_for_end() == "Completed"


def test_cancelled_run_ends_in_order_and_frees_its_slot(prefect: SyncPrefectClient, start: Start) -> None:
    run = start(hold=True)
    pid = run.wait_for_body()["pid"]
    prefect.set_flow_run_state(run.id, Cancelling())
    assert run.wait_for_end() == "Cancelled"
    assert run.ended_in_order()
    wait_until(lambda: not is_alive(pid), 10)
    assert start().wait_for_end() == "Completed"


def test_killed_run_is_crashed_and_frees_its_slot(start: Start) -> None:
    run = start(hold=True)
    os.kill(run.wait_for_body()["pid"], signal.SIGKILL)
    assert run.wait_for_end() == "Crashed"
    assert "-9" in str(run.read_state().message)
    assert start().wait_for_end() == "Completed"


def test_killed_client_ends_its_run(elsewhere: Stack, start: Start) -> None:
    run = start(hold=True)
    pid = run.wait_for_body()["pid"]
    worker = elsewhere.processes["worker"].pid
    newest = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()[-1]
    os.kill(int(newest), signal.SIGKILL)
    assert run.wait_for_end() == "Crashed"
    wait_until(lambda: not is_alive(pid), 10)
    assert start().wait_for_end() == "Completed"


def test_run_survives_a_restart_of_the_prefect_server_and_frees_its_slot(elsewhere: Stack, start: Start) -> None:
    run = start(hold=True)
    run.wait_for_body()
    kill(elsewhere, "prefect")
    start_again(elsewhere, "prefect")
    run.release()
    assert run.wait_for_end() == "Completed"
    assert start().wait_for_end() == "Completed"


def test_run_that_died_with_its_worker_is_crashed_within_a_minute_and_frees_its_slot(
    elsewhere: Stack, start: Start
) -> None:
    run = start(hold=True)
    pid = run.wait_for_body()["pid"]
    kill(elsewhere, "worker")
    wait_until(lambda: not is_alive(pid), 10)
    died = time.monotonic()
    try:
        assert run.wait_for_end() == "Crashed"
        assert time.monotonic() - died < 60
    finally:
        start_again(elsewhere, "worker")
    assert start().wait_for_end() == "Completed"


def test_killed_parent_ends_its_run_and_the_next_run_is_cold(elsewhere: Stack, start: Start) -> None:
    run = start(hold=True)
    pid = run.wait_for_body()["pid"]
    kill(elsewhere, "runs")
    assert run.wait_for_end() == "Crashed"
    wait_until(lambda: not is_alive(pid), 10)
    cold = start()
    assert cold.wait_for_end() == "Completed"
    assert cold.wait_for_body()["parent"] == elsewhere.processes["worker"].pid
    socket = Path(elsewhere.environment[SOCKET_VARIABLE])
    socket.unlink()
    start_again(elsewhere, "runs")
    wait_until(socket.exists)
