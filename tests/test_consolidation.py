"""Consolidations over a whole installation: killed, cancelled, retried, and with feedback that comes meanwhile."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.states import Cancelling, Scheduled

from tests.faults import BreakableInstallation, connect_to_prefect, wait_until

pytestmark = pytest.mark.slow

# A consolidation has a low priority, so beside other tests it begins and ends many times later than alone.
_WAIT_SECONDS = 600
_DOES_NOT_BEGIN = "Crash a run of consolidate/consolidation that does not begin"  # within 90 s


class Consolidations:
    """Starts consolidations by hand, as in the Prefect UI, and pauses them where a test asks for it."""

    def __init__(self, installation: BreakableInstallation, prefect: SyncPrefectClient) -> None:
        self.installation, self._prefect = installation, prefect
        self._pause = installation.folder / "pause"
        self._reached = self._pause.with_suffix(".reached")
        deployment = prefect.read_deployment_by_name("consolidate/consolidation")
        self._deployment = deployment.id
        paused = DeploymentUpdate(
            path=str(Path(__file__).parent / "flows/probes"),
            entrypoint="paused_consolidation.py:consolidate",
            job_variables={**deployment.job_variables, "env": {"PAUSE_FILE": str(self._pause)}},
        )
        prefect.update_deployment(deployment.id, paused)
        [automation] = prefect.read_automations_by_name(_DOES_NOT_BEGIN)
        prefect.delete_automation(automation.id)

    def start(self) -> UUID:
        return self._prefect.create_flow_run_from_deployment(self._deployment).id

    def start_and_pause_after(self, call: str) -> tuple[UUID, int]:
        """Start a run, wait until it pauses, and return its id and its process."""
        self._reached.unlink(missing_ok=True)
        self._pause.write_text(call)
        run_id = self.start()
        wait_until(self._reached.exists, _WAIT_SECONDS)
        return run_id, int(self._reached.read_text())

    def resume(self) -> None:
        self._pause.unlink()

    def start_by_choice(self) -> UUID:
        """Start the other deployment with the choice that starts this one."""
        feedback = self._prefect.read_deployment_by_name("learn-from-feedback/feedback").id
        chosen = {"request": {"learn": "everything again"}}
        return self._prefect.create_flow_run_from_deployment(feedback, parameters=chosen).id

    def read_name(self, run_id: UUID) -> str:
        return self._prefect.read_flow_run(run_id).name

    def set_state(self, run_id: UUID, state: Any) -> None:
        self._prefect.set_flow_run_state(run_id, state, force=True)

    def retry_until_completed(self, run_id: UUID) -> None:
        """Retry a crashed run, as in the Prefect UI: the worker may crash the first retry, as decision 0011 says."""
        self.set_state(run_id, Scheduled())
        if self.wait_for_end(run_id) == "Crashed":
            self.set_state(run_id, Scheduled())
        assert self.wait_for_end(run_id) == "Completed"

    def wait_for_end(self, run_id: UUID) -> str | None:
        wait_until(
            lambda: bool((state := self._prefect.read_flow_run(run_id).state) and state.is_final()), _WAIT_SECONDS
        )
        return self._prefect.read_flow_run(run_id).state_name

    def list_jobs(self) -> list[dict[str, Any]]:
        jobs = self.installation.http.get("/jobs", params={"limit": 200}).json()["items"]
        return [job for job in jobs if job["job_type"] == "consolidation"]

    def wait_for_answer(self, count: int) -> dict[str, Any]:
        """Wait until there are so many consolidation jobs; return the newest with its outcome."""
        wait_until(lambda: len(self.list_jobs()) >= count, _WAIT_SECONDS)
        jobs = self.list_jobs()
        assert len(jobs) == count, jobs
        return self.installation.reviewer.wait_for_job(jobs[0]["job_id"])


@pytest.fixture(scope="module")
def consolidations(breakable: BreakableInstallation) -> Iterator[Consolidations]:
    with connect_to_prefect(breakable.stack) as prefect:
        yield Consolidations(breakable, prefect)


def test_feedback_during_a_consolidation_does_not_wait_for_it_and_is_in_what_it_promotes(
    breakable: BreakableInstallation, consolidations: Consolidations
) -> None:
    run_id, process = consolidations.start_and_pause_after("flows.consolidation.load_learned")
    assert os.getpriority(os.PRIO_PROCESS, process) == 10
    document = breakable.upload()
    breakable.check_learned(breakable.feed_back(document))
    before = breakable.find_champion()
    consolidations.resume()
    assert consolidations.wait_for_end(run_id) == "Completed"
    job = consolidations.wait_for_answer(1)
    assert (job["outcome"]["decision"], job["outcome"]["training_documents"]) == ("promoted", [document.id])
    assert "It then learned 1 document learned meanwhile" in job["message"]
    assert breakable.find_champion() == job["outcome"]["challenger"]["version"] != before


@pytest.mark.parametrize("call", ["flows.consolidation.fit", "flows.consolidation.hand_over"])
def test_consolidation_killed_and_retried_hands_over_once_and_the_loop_goes_on(
    breakable: BreakableInstallation, consolidations: Consolidations, call: str
) -> None:
    before = len(consolidations.list_jobs())
    run_id, process = consolidations.start_and_pause_after(call)
    os.kill(process, signal.SIGKILL)
    assert consolidations.wait_for_end(run_id) == "Crashed"
    consolidations.resume()
    breakable.check_learned(breakable.feed_back())
    consolidations.retry_until_completed(run_id)
    assert consolidations.wait_for_answer(before + 1)["status"] == "completed"
    breakable.check_learned(breakable.feed_back())


def test_consolidation_that_is_cancelled_changes_nothing_and_the_next_completes(
    breakable: BreakableInstallation, consolidations: Consolidations
) -> None:
    before, champion = len(consolidations.list_jobs()), breakable.find_champion()
    run_id, process = consolidations.start_and_pause_after("flows.consolidation.fit")
    consolidations.set_state(run_id, Cancelling())
    assert consolidations.wait_for_end(run_id) == "Cancelled"
    wait_until(lambda: not Path(f"/proc/{process}").exists())
    assert (len(consolidations.list_jobs()), breakable.find_champion()) == (before, champion)
    consolidations.resume()
    assert consolidations.wait_for_end(consolidations.start()) == "Completed"
    assert consolidations.wait_for_answer(before + 1)["status"] == "completed"


def test_everything_again_chosen_in_a_run_on_feedback_starts_a_consolidation(consolidations: Consolidations) -> None:
    before = len(consolidations.list_jobs())
    run_id = consolidations.start_by_choice()
    assert consolidations.wait_for_end(run_id) == "Completed"
    assert consolidations.read_name(run_id) == "consolidation started"
    assert consolidations.wait_for_answer(before + 1)["status"] == "completed"


def test_consolidation_beside_another_is_cancelled_by_prefect(consolidations: Consolidations) -> None:
    first, _ = consolidations.start_and_pause_after("flows.consolidation.load_learned")
    assert consolidations.wait_for_end(consolidations.start()) == "Cancelled"
    consolidations.resume()
    assert consolidations.wait_for_end(first) == "Completed"


def test_consolidation_starts_by_itself_after_twenty_documents(
    breakable: BreakableInstallation, consolidations: Consolidations
) -> None:
    before = len(consolidations.list_jobs())
    breakable.check_learned(*[breakable.feed_back() for _ in range(20)])
    job = consolidations.wait_for_answer(before + 1)
    assert job["outcome"]["reason"].startswith(("Promoted", "Not promoted"))
    breakable.check_nothing_is_lost()
