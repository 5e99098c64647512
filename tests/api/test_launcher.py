from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient
from sqlmodel import Session

from api.launcher import launch, trigger_model_feedback
from api.prefect_runs import PrefectRuns
from api.schemas import JobStatus
from local.processes import Stack
from registry.errors import InvalidInputError, NotFoundError
from registry.jobs import get_job, list_job_documents, list_unlaunched_jobs
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
def prefect_away(settings: Settings) -> PrefectRuns:
    return PrefectRuns(SyncPrefectClient("http://127.0.0.1:9/api"), settings)


def test_feedback_is_stored_with_its_annotations_and_launched(session: Session, prefect: PrefectRuns) -> None:
    document = add_document(session)
    job = trigger_model_feedback(session, prefect, document.id, [marked("Bell")], "ana", "checked twice")
    assert (job.type, job.triggered_by, job.note) == (JobType.FEEDBACK, "ana", "checked twice")
    assert list_job_documents(session, [job.id]) == [document.id]
    assert job.flow_run_id
    assert prefect.read_states([job.flow_run_id])[job.flow_run_id].status in JobStatus


def test_launching_a_job_twice_starts_one_run(session: Session, prefect: PrefectRuns) -> None:
    job = trigger_model_feedback(session, prefect, add_document(session).id, [marked("Bell")])
    first = job.flow_run_id
    launch(session, prefect, job)
    assert job.flow_run_id == first


def test_feedback_while_prefect_is_away_waits_and_is_launched_later(
    session: Session, prefect: PrefectRuns, prefect_away: PrefectRuns
) -> None:
    job = trigger_model_feedback(session, prefect_away, add_document(session).id, [marked("Bell")])
    session.rollback()
    assert get_job(session, job.id).flow_run_id is None
    assert [waiting.id for waiting in list_unlaunched_jobs(session)] == [job.id]
    launch(session, prefect, job)
    assert list_unlaunched_jobs(session) == []


def test_wrong_annotation_stores_neither_annotations_nor_job(session: Session, prefect_away: PrefectRuns) -> None:
    document = add_document(session)
    session.commit()
    wrong = marked("Bell").model_copy(update={"value": "Bull"})
    with pytest.raises(InvalidInputError):
        trigger_model_feedback(session, prefect_away, document.id, [marked("Acme Ltd"), wrong])
    session.rollback()
    assert list_unlaunched_jobs(session) == []
    with pytest.raises(InvalidInputError, match="no approved annotations"):
        trigger_model_feedback(session, prefect_away, document.id)


def test_empty_list_is_feedback_that_nothing_is_to_be_marked(session: Session, prefect_away: PrefectRuns) -> None:
    assert trigger_model_feedback(session, prefect_away, add_document(session).id, []).id


def test_unknown_document_is_not_found(session: Session, prefect_away: PrefectRuns) -> None:
    with pytest.raises(NotFoundError):
        trigger_model_feedback(session, prefect_away, "none")
