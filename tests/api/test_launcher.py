from collections.abc import Iterator
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Cancelled
from sqlalchemy import Engine
from sqlmodel import Session

from api.launcher import Launcher, trigger_model_feedback
from api.prefect_runs import PrefectRuns
from api.schemas import JobStatus
from local.processes import Stack
from registry.errors import InvalidInputError, NotFoundError, UnavailableError
from registry.jobs import add_job, claim_jobs, find_unlaunched_job, list_job_documents
from registry.settings import Settings
from registry.tables import JobType
from tests.registry.test_annotations import add_document, marked


@pytest.fixture
def prefect(stack: Stack, settings: Settings) -> Iterator[PrefectRuns]:
    """The stack's Prefect server, with a deployment that no worker attends to."""
    with SyncPrefectClient(f"{stack.prefect_url}/api") as client:
        flow_id = client.create_flow_from_name("learn-from-feedback")
        client.create_deployment(flow_id, "unattended")
        yield PrefectRuns(client, settings.model_copy(update={"deployment": "learn-from-feedback/unattended"}))


@pytest.fixture
def launcher(engine: Engine, prefect: PrefectRuns) -> Launcher:
    return Launcher(engine, prefect)


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
    session: Session, launcher: Launcher
) -> None:
    jobs = [
        trigger_model_feedback(session, launcher, add_document(session, name).id, [marked("Bell")]) for name in "abc"
    ]
    for _ in range(2):
        launcher.launch_waiting()
    session.expire_all()
    assert [bool(job.flow_run_id) for job in jobs] == [True, False, False]
    assert {job.id for job in claim_jobs(session, str(jobs[0].flow_run_id), jobs[0].id)} == {job.id for job in jobs}
    late = trigger_model_feedback(session, launcher, add_document(session, "d").id, [marked("Bell")])
    launcher.launch_waiting()
    session.refresh(late)
    assert late.flow_run_id


def test_run_that_was_cancelled_before_it_began_keeps_nobody_waiting(
    session: Session, launcher: Launcher, stack: Stack
) -> None:
    first, second = (
        trigger_model_feedback(session, launcher, add_document(session, name).id, [marked("Bell")]) for name in "ab"
    )
    launcher.launch_waiting()
    session.refresh(first)
    with SyncPrefectClient(f"{stack.prefect_url}/api") as client:
        client.set_flow_run_state(UUID(first.flow_run_id), Cancelled(), force=True)
    session.commit()
    launcher.launch_waiting()
    session.refresh(second)
    assert second.flow_run_id


def test_feedback_while_prefect_is_away_waits_and_is_launched_later(
    session: Session, launcher: Launcher, prefect_away: Launcher
) -> None:
    job = trigger_model_feedback(session, prefect_away, add_document(session).id, [marked("Bell")])
    with pytest.raises(UnavailableError):
        prefect_away.launch_waiting()
    assert find_unlaunched_job(session) == job
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


def test_empty_list_is_feedback_that_nothing_is_to_be_marked(session: Session, prefect_away: Launcher) -> None:
    assert trigger_model_feedback(session, prefect_away, add_document(session).id, []).id


def test_unknown_document_is_not_found(session: Session, prefect_away: Launcher) -> None:
    with pytest.raises(NotFoundError):
        trigger_model_feedback(session, prefect_away, "none")
