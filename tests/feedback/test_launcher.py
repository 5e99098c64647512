import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.events.filters import EventFilter, EventResourceFilter
from prefect.states import Cancelled, Cancelling, Crashed, Failed, Pending, Running, Scheduled
from sqlalchemy import Engine
from sqlmodel import Session

from api.schemas import JobStatus
from cli.installation import Stack
from feedback.launcher import Launcher, trigger_model_feedback
from feedback.prefect_runs import PrefectRuns
from registry.annotations import list_annotations
from registry.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from registry.jobs import add_job, claim_jobs, find_unlaunched_job, finish_jobs, list_job_documents
from registry.outcome import Outcome
from registry.settings import Settings
from registry.tables import Job, JobType
from tests.registry.test_annotations import add_document, marked


@pytest.fixture
def server(stack: Stack) -> Iterator[SyncPrefectClient]:
    """The stack's Prefect server."""
    with SyncPrefectClient(f"{stack.prefect_url}/api") as client:
        yield client


@pytest.fixture
def prefect(server: SyncPrefectClient, settings: Settings) -> PrefectRuns:
    """The stack's Prefect server, with a deployment that no worker attends to."""
    flow_id = server.create_flow_from_name("learn-from-feedback")
    server.create_deployment(flow_id, "unattended")
    return PrefectRuns(server, settings.model_copy(update={"deployment": "learn-from-feedback/unattended"}))


@pytest.fixture
def launcher(engine: Engine, prefect: PrefectRuns) -> Launcher:
    return Launcher(engine, prefect)


@pytest.fixture
def job(session: Session, launcher: Launcher) -> Job:
    """A job whose run waits for a worker."""
    job = trigger_model_feedback(session, launcher, add_document(session).id, [marked("Bell")])
    launcher.launch_waiting()
    session.refresh(job)
    session.commit()
    return job


def check_released(session: Session, launcher: Launcher, job: Job) -> None:
    """See that the launcher finds that nobody learns the job any more, and will launch it again."""
    session.commit()
    launcher.launch_waiting()
    session.refresh(job)
    assert (job.flow_run_id, job.attempts) == (None, 1)
    session.commit()


@pytest.fixture
def prefect_away(engine: Engine, settings: Settings) -> Launcher:
    return Launcher(engine, PrefectRuns(SyncPrefectClient("http://127.0.0.1:9/api"), settings))


def test_feedback_is_stored_with_its_annotations_and_launched_when_woken(
    session: Session, launcher: Launcher, prefect: PrefectRuns
) -> None:
    launcher.start()
    document = add_document(session)
    job = trigger_model_feedback(session, launcher, document.id, [marked("Bell")], "ana", "checked twice")
    assert (job.type, job.triggered_by, job.note) == (JobType.FEEDBACK, "ana", "checked twice")
    assert list_job_documents(session, [job.id]) == [document.id]
    session.commit()
    while not job.flow_run_id:
        session.refresh(job)
        session.commit()
    launcher.stop()
    assert prefect.read_states([job.flow_run_id])[job.flow_run_id].status == JobStatus.PENDING


def test_job_launched_before_its_run_was_noted_starts_one_run(session: Session, prefect: PrefectRuns) -> None:
    job = add_job(session, JobType.FEEDBACK, [add_document(session).id], "ana")
    assert prefect.start(job, []) == prefect.start(job, [])


def test_burst_waits_for_the_run_that_is_to_begin_and_what_comes_later_gets_the_next(
    session: Session, launcher: Launcher, server: SyncPrefectClient
) -> None:
    jobs = [
        trigger_model_feedback(session, launcher, add_document(session, name).id, [marked("Bell")]) for name in "abc"
    ]
    for _ in range(2):
        launcher.launch_waiting()
    session.expire_all()
    assert [bool(job.flow_run_id) for job in jobs] == [True, False, False]
    assert {job.id for job in claim_jobs(session, str(jobs[0].flow_run_id), jobs[0].id)} == {job.id for job in jobs}
    server.set_flow_run_state(UUID(jobs[0].flow_run_id), Running(), force=True)
    late = trigger_model_feedback(session, launcher, add_document(session, "d").id, [marked("Bell")])
    launcher.launch_waiting()
    session.refresh(late)
    assert late.flow_run_id


def test_run_that_was_cancelled_before_it_began_keeps_nobody_waiting(
    session: Session, launcher: Launcher, server: SyncPrefectClient, job: Job
) -> None:
    second = trigger_model_feedback(session, launcher, add_document(session, "b").id, [marked("Bell")])
    launcher.launch_waiting()
    session.refresh(second)
    assert second.flow_run_id is None
    session.commit()
    server.set_flow_run_state(UUID(job.flow_run_id), Cancelled(), force=True)
    session.commit()
    launcher.launch_waiting()
    session.refresh(second)
    assert second.flow_run_id
    session.refresh(job)
    assert job.outcome
    assert job.outcome["cancelled"]


@pytest.mark.parametrize("ended", [Crashed(message="its worker died"), Failed(message="MLflow is away"), None])
def test_job_whose_run_ended_without_an_answer_is_launched_again(
    session: Session, launcher: Launcher, server: SyncPrefectClient, job: Job, ended: State[None] | None
) -> None:
    first = UUID(job.flow_run_id)
    if ended:
        server.set_flow_run_state(first, ended, force=True)
    else:
        server.delete_flow_run(first)
    check_released(session, launcher, job)
    time.sleep(2.1)
    launcher.launch_waiting()
    session.refresh(job)
    assert job.flow_run_id not in (None, str(first))


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedback.prefect_runs._PATIENCE", timedelta(seconds=3))


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("state", [Running, Pending])
def test_run_that_was_silent_for_long_is_crashed_and_its_job_launched_again(
    session: Session, launcher: Launcher, server: SyncPrefectClient, job: Job, state: Callable[..., State[None]]
) -> None:
    run_id = UUID(job.flow_run_id)
    server.set_flow_run_state(run_id, state(), force=True)
    launcher.launch_waiting()
    assert server.read_flow_run(run_id).state_name == state().name
    time.sleep(4)
    launcher.launch_waiting()
    assert server.read_flow_run(run_id).state_name == "Crashed"
    check_released(session, launcher, job)


@pytest.mark.usefixtures("little_patience")
def test_run_that_was_silent_while_being_cancelled_is_cancelled(
    launcher: Launcher, server: SyncPrefectClient, job: Job
) -> None:
    run_id = UUID(job.flow_run_id)
    server.set_flow_run_state(run_id, Cancelling(), force=True)
    time.sleep(4)
    launcher.launch_waiting()
    assert server.read_flow_run(run_id).state_name == "Cancelled"


def test_run_that_lasts_for_long_and_is_heard_of_is_left_alone(
    launcher: Launcher, server: SyncPrefectClient, job: Job
) -> None:
    run_id = UUID(job.flow_run_id)
    of_run = EventFilter(resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"]))
    while not server.read_events(of_run, limit=1).events:
        time.sleep(0.2)
    server.set_flow_run_state(run_id, Running(timestamp=datetime.now(UTC) - timedelta(minutes=6)), force=True)
    launcher.launch_waiting()
    assert server.read_flow_run(run_id).state_name == "Running"


def test_run_that_is_due_only_much_later_keeps_nobody_waiting(
    session: Session, launcher: Launcher, server: SyncPrefectClient, job: Job
) -> None:
    later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1))
    server.set_flow_run_state(UUID(job.flow_run_id), later, force=True)
    check_released(session, launcher, job)


def test_feedback_while_prefect_is_away_waits_and_is_launched_later(
    session: Session, launcher: Launcher, prefect_away: Launcher
) -> None:
    job = trigger_model_feedback(session, prefect_away, add_document(session).id, [marked("Bell")])
    with pytest.raises(UnavailableError):
        prefect_away.launch_waiting()
    assert (waiting := find_unlaunched_job(session))
    assert waiting.id == job.id
    session.commit()
    launcher.launch_waiting()
    assert find_unlaunched_job(session) is None


def test_wrong_annotation_stores_neither_annotations_nor_job(session: Session, prefect_away: Launcher) -> None:
    document = add_document(session)
    session.commit()
    wrong = marked("Bell").model_copy(update={"value": "Bull"})
    with pytest.raises(InvalidInputError):
        trigger_model_feedback(session, prefect_away, document.id, [marked("Acme Ltd"), wrong])
    session.rollback()
    assert find_unlaunched_job(session) is None
    with pytest.raises(InvalidInputError, match="no approved annotations"):
        trigger_model_feedback(session, prefect_away, document.id)


def test_same_annotations_again_are_the_same_job_and_others_another(session: Session, prefect_away: Launcher) -> None:
    document = add_document(session)
    both = [marked("Bell"), marked("Acme Ltd")]
    first = trigger_model_feedback(session, prefect_away, document.id, both).id
    assert trigger_model_feedback(session, prefect_away, document.id, both[::-1]).id == first
    assert trigger_model_feedback(session, prefect_away, document.id).id == first
    other = trigger_model_feedback(session, prefect_away, document.id, both[:1]).id
    assert other != first
    assert trigger_model_feedback(session, prefect_away, document.id, both).id not in (first, other)


def test_same_annotations_sent_at_once_are_one_job(engine: Engine, session: Session, prefect_away: Launcher) -> None:
    document_id = add_document(session).id
    session.commit()

    def feed_back(number: int) -> str:
        with Session(engine) as own:
            both = [marked("Bell"), marked("Acme Ltd")][:: (-1) ** number]
            return trigger_model_feedback(own, prefect_away, document_id, both).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(feed_back, range(8)))) == 1


def test_annotations_whose_training_failed_are_tried_again(session: Session, prefect_away: Launcher) -> None:
    document = add_document(session)
    first = trigger_model_feedback(session, prefect_away, document.id, [marked("Bell")]).id
    failed = Outcome(flow_run_id="run", promoted=False, failed=True, reason="because")
    finish_jobs(session, [first], failed, set())
    assert trigger_model_feedback(session, prefect_away, document.id, [marked("Bell")]).id != first


def test_idempotency_key_again_changes_nothing_and_with_other_feedback_conflicts(
    session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    first = trigger_model_feedback(session, prefect_away, document.id, [marked("Bell")], idempotency_key="k")
    trigger_model_feedback(session, prefect_away, document.id, [marked("Acme Ltd")])
    again = trigger_model_feedback(session, prefect_away, document.id, [marked("Bell")], idempotency_key="k")
    assert again.id == first.id
    assert [annotation.value for annotation in list_annotations(session, document.id)] == ["Acme Ltd"]
    with pytest.raises(ConflictError, match="other feedback"):
        trigger_model_feedback(session, prefect_away, document.id, [marked("Acme Ltd")], idempotency_key="k")
    with pytest.raises(ConflictError, match="other feedback"):
        trigger_model_feedback(
            session, prefect_away, add_document(session, "b").id, [marked("Bell")], idempotency_key="k"
        )


def test_empty_list_is_feedback_that_nothing_is_to_be_marked(session: Session, prefect_away: Launcher) -> None:
    assert trigger_model_feedback(session, prefect_away, add_document(session).id, []).id


def test_unknown_document_is_not_found(session: Session, prefect_away: Launcher) -> None:
    with pytest.raises(NotFoundError):
        trigger_model_feedback(session, prefect_away, "none")
