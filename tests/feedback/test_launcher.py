from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import sleep
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.events.filters import EventFilter, EventResourceFilter
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from cli.installation import Stack
from feedback.claiming import MAX_FAILURES, answer_jobs, claim_jobs
from feedback.consolidation import Candidate, add_consolidation
from feedback.job_state import JobStatus
from feedback.launcher import Launcher
from feedback.prefect_runs import PrefectRuns
from feedback.submission import trigger_model_feedback
from feedback.time_limits import TimeLimits
from feedback.unlearning import claim_unlearnings, delete_document
from registry.errors import UnavailableError
from registry.jobs import add_job, get_snapshot, list_job_documents
from registry.models import ModelRegistry
from registry.outcome import Decision
from registry.settings import Settings
from registry.tables import Document, Job, JobType
from tests.feedback.jobs import add_feedback, find_waiting_job, outcome
from tests.registry.test_annotations import add_document, marked

LIMITS = TimeLimits(first_pause_seconds=70, missed_event_seconds=1000)


@dataclass
class Clock:
    """A clock that the tests advance."""

    seconds: float = 0.0

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    def utc(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(stack: Stack) -> Iterator[SyncPrefectClient]:
    """A client of the stack's Prefect server."""
    with SyncPrefectClient(f"{stack.prefect_url}/api") as client:
        yield client


@pytest.fixture
def unattended(server: SyncPrefectClient, settings: Settings) -> Settings:
    """The settings with deployments that no worker serves; that of consolidations is new, so it has no earlier runs."""
    consolidation = f"unattended-{uuid4()}"
    server.create_deployment(server.create_flow_from_name("learn-from-feedback"), "unattended")
    server.create_deployment(server.create_flow_from_name("consolidate"), consolidation)
    deployments = {
        "deployment": "learn-from-feedback/unattended",
        "consolidation_deployment": f"consolidate/{consolidation}",
    }
    return settings.model_copy(update=deployments)


@pytest.fixture
def prefect(server: SyncPrefectClient, unattended: Settings, clock: Clock) -> PrefectRuns:
    return PrefectRuns(server, unattended, LIMITS, clock.utc)


@pytest.fixture
def launcher(engine: Engine, prefect: PrefectRuns, unattended: Settings, clock: Clock) -> Launcher:
    return Launcher(engine, prefect, ModelRegistry(unattended), LIMITS, clock.utc)


@pytest.fixture
def job(session: Session, launcher: Launcher) -> Job:
    """A job whose run waits for a worker."""
    job = trigger_model_feedback(session, launcher, add_document(session), [marked("Bell")])
    launcher.launch_waiting()
    session.refresh(job)
    session.commit()
    return job


def test_prefect_without_a_deployment_is_reported(server: SyncPrefectClient, unattended: Settings) -> None:
    PrefectRuns(server, unattended, LIMITS).check_alive()
    for name in ("deployment", "consolidation_deployment"):
        lost = PrefectRuns(server, unattended.model_copy(update={name: "lost/lost"}), LIMITS)
        with pytest.raises(
            UnavailableError, match="Prefect has no deployment lost/lost: run `contract-feedback deploy`"
        ):
            lost.check_alive()


def launched_run(job: Job) -> UUID:
    assert job.launched_run_id
    return UUID(job.launched_run_id)


def check_released(session: Session, launcher: Launcher, job: Job) -> None:
    """Check that the launcher releases the job, to launch it again."""
    session.commit()
    launcher.launch_waiting()
    session.refresh(job)
    assert (job.launched_run_id, job.failures) == (None, 1)
    session.commit()


def test_feedback_is_stored_with_its_annotations_and_launched_when_woken(
    session: Session, launcher: Launcher, prefect: PrefectRuns
) -> None:
    launcher.start()
    document = add_document(session)
    job = trigger_model_feedback(session, launcher, document, [marked("Bell")], "ana", "checked twice")
    assert (job.type, job.triggered_by, job.note) == (JobType.FEEDBACK, "ana", "checked twice")
    assert list_job_documents(session, [job.id]) == [document.id]
    session.commit()
    while not job.launched_run_id:
        session.refresh(job)
        session.commit()
    launcher.stop()
    assert prefect.read_states([job.launched_run_id])[job.launched_run_id].status == JobStatus.PENDING


def test_job_launched_twice_starts_one_run(session: Session, prefect: PrefectRuns) -> None:
    job = add_job(session, JobType.FEEDBACK, [add_document(session).id], "ana")
    assert prefect.start(job, []) == prefect.start(job, [])


def test_burst_waits_for_the_run_about_to_begin_and_later_feedback_gets_the_next_run(
    session: Session, launcher: Launcher, server: SyncPrefectClient
) -> None:
    jobs = [trigger_model_feedback(session, launcher, add_document(session, name), [marked("Bell")]) for name in "abc"]
    for _ in range(2):
        launcher.launch_waiting()
    session.expire_all()
    assert [bool(job.launched_run_id) for job in jobs] == [True, False, False]
    assert {job.id for job in claim_jobs(session, str(jobs[0].launched_run_id), jobs[0].id)} == {job.id for job in jobs}
    server.set_flow_run_state(launched_run(jobs[0]), Running(), force=True)
    late = trigger_model_feedback(session, launcher, add_document(session, "d"), [marked("Bell")])
    launcher.launch_waiting()
    session.refresh(late)
    assert late.launched_run_id


def test_run_cancelled_before_it_began_is_answered_and_delays_no_other_job(
    session: Session, launcher: Launcher, server: SyncPrefectClient, job: Job
) -> None:
    second = trigger_model_feedback(session, launcher, add_document(session, "b"), [marked("Bell")])
    launcher.launch_waiting()
    session.refresh(second)
    assert second.launched_run_id is None
    session.commit()
    server.set_flow_run_state(launched_run(job), Cancelled(), force=True)
    session.commit()
    launcher.launch_waiting()
    session.refresh(second)
    assert second.launched_run_id
    session.refresh(job)
    assert job.outcome
    assert job.outcome.decision == Decision.CANCELLED


@pytest.mark.parametrize("ended", [Crashed(message="its worker died"), Failed(message="MLflow is away"), None])
def test_job_whose_run_ended_without_an_answer_is_launched_again(
    session: Session, launcher: Launcher, server: SyncPrefectClient, job: Job, clock: Clock, ended: State[None] | None
) -> None:
    first = launched_run(job)
    if ended:
        server.set_flow_run_state(first, ended, force=True)
    else:
        server.delete_flow_run(first)
    check_released(session, launcher, job)
    clock.advance(50)
    launcher.launch_waiting()
    session.refresh(job)
    assert job.launched_run_id is None
    session.commit()
    clock.advance(20)
    launcher.launch_waiting()
    session.refresh(job)
    assert job.launched_run_id not in (None, str(first))


@pytest.mark.parametrize("launcher_count", [1, 2])
def test_job_whose_runs_always_fail_is_launched_as_often_and_answered_as_late_by_two_launchers_as_by_one(
    session: Session,
    engine: Engine,
    prefect: PrefectRuns,
    server: SyncPrefectClient,
    clock: Clock,
    unattended: Settings,
    launcher_count: int,
) -> None:
    limits = TimeLimits(longest_pause_seconds=30)
    launchers = [Launcher(engine, prefect, ModelRegistry(unattended), limits, clock.utc) for _ in range(launcher_count)]
    job = trigger_model_feedback(session, launchers[0], add_document(session), [marked("Bell")])
    began, runs = clock.utc(), set()
    while not job.outcome:
        for launcher in launchers:
            launcher.launch_waiting()
            session.refresh(job)
            session.commit()
            if job.launched_run_id and job.launched_run_id not in runs:
                runs.add(job.launched_run_id)
                server.set_flow_run_state(launched_run(job), Failed(message="the worker is broken"), force=True)
        clock.advance(limits.launch_seconds)
    paused = sum(limits.pause_before_launch(failures) for failures in range(1, MAX_FAILURES))
    took = (clock.utc() - began).total_seconds()
    assert (job.outcome.decision, len(runs)) == (Decision.FAILED, MAX_FAILURES)
    assert paused <= took <= paused + 2 * limits.launch_seconds * MAX_FAILURES


@pytest.mark.parametrize("state", [Running, Pending])
def test_run_without_events_for_too_long_is_crashed_and_its_job_launched_again(
    session: Session,
    launcher: Launcher,
    server: SyncPrefectClient,
    job: Job,
    clock: Clock,
    state: Callable[..., State[None]],
) -> None:
    run_id = launched_run(job)
    server.set_flow_run_state(run_id, state(), force=True)
    launcher.launch_waiting()
    assert server.read_flow_run(run_id).state_name == state().name
    clock.advance(LIMITS.missed_event_seconds + 1)
    launcher.launch_waiting()
    assert server.read_flow_run(run_id).state_name == "Crashed"
    check_released(session, launcher, job)


def test_run_without_events_while_being_cancelled_is_cancelled(
    launcher: Launcher, server: SyncPrefectClient, job: Job, clock: Clock
) -> None:
    run_id = launched_run(job)
    server.set_flow_run_state(run_id, Cancelling(), force=True)
    clock.advance(LIMITS.missed_event_seconds + 1)
    launcher.launch_waiting()
    assert server.read_flow_run(run_id).state_name == "Cancelled"


def test_long_run_with_recent_events_is_left_alone(launcher: Launcher, server: SyncPrefectClient, job: Job) -> None:
    run_id = launched_run(job)
    of_run = EventFilter(resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"]))
    while not server.read_events(of_run, limit=1).events:
        sleep(0.2)
    server.set_flow_run_state(run_id, Running(timestamp=datetime.now(UTC) - timedelta(minutes=20)), force=True)
    launcher.launch_waiting()
    assert server.read_flow_run(run_id).state_name == "Running"


def test_job_whose_run_is_due_only_much_later_is_launched_again(
    session: Session, launcher: Launcher, server: SyncPrefectClient, job: Job
) -> None:
    later: State[None] = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1))
    server.set_flow_run_state(launched_run(job), later, force=True)
    check_released(session, launcher, job)


def test_feedback_while_prefect_is_away_waits_and_is_launched_later(
    session: Session, launcher: Launcher, prefect_away: Launcher
) -> None:
    job = trigger_model_feedback(session, prefect_away, add_document(session), [marked("Bell")])
    with pytest.raises(UnavailableError):
        prefect_away.launch_waiting()
    assert (waiting := find_waiting_job(session))
    assert waiting.id == job.id
    session.commit()
    launcher.launch_waiting()
    assert find_waiting_job(session) is None


def learn(session: Session, count: int) -> None:
    """Add so many documents whose feedback was answered with a promotion."""
    first = get_snapshot(session)
    jobs = [add_feedback(session, f"{first + index}")[0].id for index in range(count)]
    answer_jobs(session, jobs, outcome())
    session.commit()


def read_consolidations(prefect: PrefectRuns) -> list[UUID]:
    return [UUID(run_id) for run_id in prefect.read_consolidations()]


def test_consolidation_starts_once_when_enough_is_new_though_two_launchers_look(
    session: Session, engine: Engine, launcher: Launcher, prefect: PrefectRuns, unattended: Settings, clock: Clock
) -> None:
    learn(session, 19)
    launcher.start_due_consolidation()
    assert read_consolidations(prefect) == []
    learn(session, 1)
    other = Launcher(engine, prefect, ModelRegistry(unattended), LIMITS, clock.utc)
    for each in (launcher, other, launcher):
        each.start_due_consolidation()
    assert len(read_consolidations(prefect)) == 1
    learn(session, 20)
    launcher.start_due_consolidation()
    assert len(read_consolidations(prefect)) == 1


def test_consolidation_that_crashed_starts_again_only_after_further_feedback(
    session: Session, launcher: Launcher, prefect: PrefectRuns, server: SyncPrefectClient
) -> None:
    learn(session, 20)
    launcher.start_due_consolidation()
    [first] = read_consolidations(prefect)
    server.set_flow_run_state(first, Crashed(), force=True)
    launcher.start_due_consolidation()
    assert read_consolidations(prefect) == []
    learn(session, 1)
    launcher.start_due_consolidation()
    [second] = read_consolidations(prefect)
    assert second != first


def test_consolidation_without_events_for_too_long_is_crashed_and_makes_way_for_the_next(
    session: Session, launcher: Launcher, prefect: PrefectRuns, server: SyncPrefectClient, clock: Clock
) -> None:
    learn(session, 20)
    launcher.start_due_consolidation()
    [dead] = read_consolidations(prefect)
    server.set_flow_run_state(dead, Running(), force=True)
    learn(session, 1)
    clock.advance(LIMITS.missed_event_seconds + 1)
    for _ in range(2):
        launcher.start_due_consolidation()
    assert server.read_flow_run(dead).state_name == "Crashed"
    assert len(read_consolidations(prefect)) == 1


def test_scheduled_consolidation_of_tomorrow_does_not_prevent_one_today(
    session: Session, launcher: Launcher, prefect: PrefectRuns, server: SyncPrefectClient, unattended: Settings
) -> None:
    deployment = server.read_deployment_by_name(unattended.consolidation_deployment)
    tomorrow: State[None] = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    server.create_flow_run_from_deployment(deployment.id, state=tomorrow)
    learn(session, 20)
    launcher.start_due_consolidation()
    assert len(read_consolidations(prefect)) == 1


def request_unlearning(session: Session, name: str) -> Job:
    """Delete a document that a version has learned."""
    job, document_id = add_feedback(session, name)
    answer_jobs(session, [job.id], outcome())
    delete_document(session, session.get_one(Document, document_id), "ana")
    session.commit()
    return (
        session.exec(select(Job).where(Job.type == JobType.UNLEARNING).order_by(col(Job.number).desc())).first() or job
    )


def look(session: Session, launcher: Launcher, request: Job) -> UUID | None:
    """Have the launcher look once, and return the run that is to answer the request."""
    launcher.launch_waiting()
    launcher.start_due_consolidation()
    session.refresh(request)
    session.commit()
    return UUID(request.run_id) if request.run_id else None


def test_consolidation_is_started_once_for_what_is_to_be_unlearned_and_feedback_does_not_wait_for_it(
    session: Session, engine: Engine, launcher: Launcher, prefect: PrefectRuns, unattended: Settings, clock: Clock
) -> None:
    requests = [request_unlearning(session, name) for name in "ab"]
    for each in (launcher, Launcher(engine, prefect, ModelRegistry(unattended), LIMITS, clock.utc)):
        run_id = look(session, each, requests[0])
    assert read_consolidations(prefect) == [run_id]
    assert look(session, launcher, requests[1]) is None, "the run under way claims it"
    job = trigger_model_feedback(session, launcher, add_document(session), [marked("Bell")])
    launcher.launch_waiting()
    session.refresh(job)
    assert job.launched_run_id


@pytest.mark.parametrize("ended", [Crashed(message="its worker died"), Cancelled(), Completed()])
def test_consolidation_that_ended_without_unlearning_is_started_again_for_ever(
    session: Session, launcher: Launcher, server: SyncPrefectClient, clock: Clock, ended: State[None]
) -> None:
    request = request_unlearning(session, "a")
    request.failures = MAX_FAILURES
    session.add(request)
    session.commit()
    first = look(session, launcher, request)
    assert first
    server.set_flow_run_state(first, ended, force=True)
    assert look(session, launcher, request) is None
    assert (request.outcome, request.failures) == (None, MAX_FAILURES + 1)
    clock.advance(LIMITS.longest_pause_seconds)
    assert look(session, launcher, request) not in (None, first)


def test_request_to_unlearn_waits_for_the_run_that_hands_its_consolidation_over(
    session: Session, launcher: Launcher, server: SyncPrefectClient
) -> None:
    request = request_unlearning(session, "a")
    run_id = look(session, launcher, request)
    assert run_id
    assert claim_unlearnings(session, str(run_id)) == [request.id]
    handover = add_consolidation(session, str(run_id), Candidate("mlflow-run", 1, "All of it."))
    session.commit()
    server.set_flow_run_state(run_id, Completed(), force=True)
    assert look(session, launcher, request) == run_id
    answer_jobs(session, [handover.id], outcome(Decision.FAILED))
    session.commit()
    assert look(session, launcher, request) is None


def test_job_whose_version_mlflow_has_lost_gets_another_run(session: Session, launcher: Launcher, job: Job) -> None:
    first, made = job.launched_run_id, outcome().model_copy(update={"mlflow_run_id": "0" * 32})
    answer_jobs(session, [job.id], made)
    session.commit()
    launcher.follow_mlflow()
    session.refresh(job)
    assert (job.outcome, job.run_id, job.lost_version) == (None, None, 1)
    session.commit()
    launcher.launch_waiting()
    session.refresh(job)
    assert job.launched_run_id not in {first, None}
