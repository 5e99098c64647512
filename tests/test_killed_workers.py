"""Workers are killed, with their runs: no feedback is lost, and none is learned twice."""

import time
from collections.abc import Iterator

import pytest

from feedback.automations import build_automations
from feedback.time_limits import TimeLimits
from tests.faults import BreakableInstallation, connect_to_prefect, kill, start_again

pytestmark = pytest.mark.slow


@pytest.fixture
def silent_runs_crash_soon(breakable: BreakableInstallation) -> Iterator[None]:
    """Crash a run that is silent for 10 s, although a living run may be silent for longer."""
    soon = TimeLimits().model_copy(update={"silence_seconds": 10, "start_seconds": 10})
    with connect_to_prefect(breakable.stack) as prefect:
        deployment = prefect.read_deployment_by_name("learn-from-feedback/feedback").id
        built = build_automations(soon, "learn-from-feedback/feedback soon", deployment)
        created = [prefect.create_automation(automation) for automation in built]
        yield
        for automation_id in created:
            prefect.delete_automation(automation_id)


@pytest.mark.parametrize(
    "call",
    [
        "flows.feedback.claim_jobs",
        "flows.feedback.load_annotations",
        "flows.feedback.fine_tune",
        "mlflow.MlflowClient.log_artifacts",
        "flows.feedback.save_challenger",
        "flows.feedback.evaluate",
        "mlflow.MlflowClient.create_model_version",
        "registry.models.ModelRegistry.promote",
        "flows.feedback.answer_jobs",
        "flows.feedback.promote",
    ],
)
@pytest.mark.usefixtures("silent_runs_crash_soon")
def test_worker_and_run_killed_after_a_call_lose_nothing_and_free_their_slot(
    breakable: BreakableInstallation, call: str
) -> None:
    worker = breakable.kill_after(call, "worker", kills_itself=True)
    job_id = breakable.feed_back()
    worker.wait(120)
    start_again(breakable.stack, "worker")
    breakable.check_learned(job_id)
    breakable.check_learned(breakable.feed_back())


@pytest.mark.usefixtures("silent_runs_crash_soon")
def test_two_workers_of_which_one_is_killed_learn_each_feedback_once(breakable: BreakableInstallation) -> None:
    breakable.processes.start("second worker", "flows.warm.worker")
    jobs = []
    for number in range(8):
        jobs.append(breakable.feed_back())
        time.sleep(1)
        if number == 4:
            kill(breakable.stack, "worker")
    breakable.check_learned(*jobs)
    start_again(breakable.stack, "worker")
    runs = [version["mlflow_run_id"] for version in breakable.http.get("/models").json()["items"]]
    assert len(runs) == len(set(runs))


def test_every_accepted_feedback_has_an_outcome_at_the_end(breakable: BreakableInstallation) -> None:
    breakable.check_nothing_is_lost()
