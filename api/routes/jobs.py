"""Feedback, training runs, and the jobs they become."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, status
from sqlmodel import Session

from api.dependencies import LimitDep, OffsetDep, ReaderDep, Services, ServicesDep, SessionDep, TrainerDep
from api.routes.annotations import check_number, resolve_annotation
from api.schemas import (
    FeedbackRequest,
    JobDetail,
    JobLinks,
    JobResponse,
    JobStatus,
    Page,
    Text,
    TrainingRunRequest,
    errors,
)
from feedback.launcher import trigger_model_feedback
from feedback.prefect_runs import RunState
from registry import jobs as queries
from registry.annotations import list_annotated_documents
from registry.documents import get_document
from registry.errors import InvalidInputError, TooManyError
from registry.outcome import Outcome
from registry.tables import Job, JobType

router = APIRouter(tags=["jobs"])


@router.post("/documents/{document_id}/feedback", status_code=status.HTTP_202_ACCEPTED, responses=errors(400, 404, 409))
def give_feedback(
    document_id: Text,
    session: SessionDep,
    services: ServicesDep,
    caller: TrainerDep,
    feedback: FeedbackRequest | None = None,
    idempotency_key: Annotated[
        str | None, Header(max_length=200, description="The same key again gives the same job, and changes nothing")
    ] = None,
) -> JobResponse:
    """Let the model learn from the document's annotations, or from those in the body, which replace them.

    The answer comes before the training: follow `links.job`. The annotations of the last feedback again give its job.
    """
    feedback = feedback or FeedbackRequest()
    document = get_document(session, document_id)
    _check_room(session, services)
    check_number(len(feedback.annotations or []), services)
    reviewer = feedback.reviewer or caller
    annotations = None
    if feedback.annotations is not None:
        annotations = [resolve_annotation(document, new, services, reviewer) for new in feedback.annotations]
    key = f"{caller} {idempotency_key}" if idempotency_key else None
    job = trigger_model_feedback(session, services.launcher, document_id, annotations, reviewer, feedback.note, key)
    return _respond(session, services, job, _find_state(job, {}).status)


@router.post("/training-runs", status_code=status.HTTP_202_ACCEPTED, responses=errors(400, 404, 409))
def start_training_run(
    session: SessionDep, services: ServicesDep, caller: TrainerDep, request: TrainingRunRequest | None = None
) -> JobResponse:
    """Train on many documents, or on all that are annotated, in one run."""
    _check_room(session, services)
    request = request or TrainingRunRequest()
    document_ids = request.document_ids
    if document_ids is None:
        document_ids = list(list_annotated_documents(session))
    document_ids = list(dict.fromkeys(document_ids))
    for document_id in document_ids:
        get_document(session, document_id)
    if not document_ids:
        raise InvalidInputError("There is no annotated document to train on")
    job = queries.create_training_run(session, document_ids, request.triggered_by or caller)
    session.commit()
    services.launcher.wake()
    return _respond(session, services, job, JobStatus.PENDING)


@router.get("/training-runs")
def read_training_runs(
    session: SessionDep, services: ServicesDep, _: ReaderDep, offset: OffsetDep = 0, limit: LimitDep = 50
) -> Page[JobResponse]:
    """List the training runs, newest first."""
    return _respond_page(session, services, offset, limit, JobType.TRAINING_RUN)


@router.get("/jobs")
def read_jobs(
    session: SessionDep, services: ServicesDep, _: ReaderDep, offset: OffsetDep = 0, limit: LimitDep = 50
) -> Page[JobResponse]:
    """List all jobs, newest first."""
    return _respond_page(session, services, offset, limit, None)


@router.get("/jobs/{job_id}", responses=errors(404))
def read_job(job_id: Text, session: SessionDep, services: ServicesDep, _: ReaderDep) -> JobDetail:
    """Read a job's state and progress and, at its end, what came of it."""
    job = queries.get_job(session, job_id)
    state = _read_states(services, [job])[job.id]
    outcome = Outcome.model_validate(job.outcome) if job.outcome else None
    progress = 100.0 if outcome else 0.0
    if state.status == JobStatus.RUNNING:
        progress = services.prefect.read_progress(str(job.claimed_by or job.flow_run_id))
    return JobDetail(
        **_respond(session, services, job, state.status).model_dump(),
        progress=progress,
        message=outcome.reason if outcome else state.message,
        outcome=outcome,
    )


def _check_room(session: Session, services: Services) -> None:
    if queries.count_waiting_jobs(session) >= services.settings.max_waiting_jobs:
        raise TooManyError(f"{services.settings.max_waiting_jobs} jobs wait to be learned: send this one later")


def _respond_page(
    session: Session, services: Services, offset: int, limit: int, job_type: JobType | None
) -> Page[JobResponse]:
    found, total = queries.list_jobs(session, offset, limit, job_type)
    states = _read_states(services, found)
    items = [_respond(session, services, job, states[job.id].status) for job in found]
    return Page(items=items, total=total, offset=offset, limit=limit)


def _read_states(services: Services, jobs: Sequence[Job]) -> dict[str, RunState]:
    """Return each job's state by its id: answered, or that of the run that claimed it, or of its own."""
    run_ids = [run_id for job in jobs if not job.outcome and (run_id := job.claimed_by or job.flow_run_id)]
    runs = services.prefect.read_states(run_ids) if run_ids else {}
    return {job.id: _find_state(job, runs) for job in jobs}


def _find_state(job: Job, runs: Mapping[str, RunState]) -> RunState:
    if job.outcome:
        refused = JobStatus.CANCELLED if job.outcome.get("cancelled") else JobStatus.FAILED
        return RunState(refused if job.has_failed else JobStatus.COMPLETED)
    run = runs.get(job.claimed_by or job.flow_run_id or "")
    if run and run.status != JobStatus.FAILED:
        return run
    failed, reason = job.attempts, job.last_failure
    if run:
        failed, reason = failed + 1, run.message
    message = "Waits to be launched"
    if failed:
        message += f" again: {failed} run{'s' * (failed != 1)} failed, at last because: {reason}"
    return RunState(JobStatus.PENDING, message)


def _respond(session: Session, services: Services, job: Job, status: JobStatus) -> JobResponse:
    run_id = job.claimed_by or job.flow_run_id
    mlflow_run_id = (job.outcome or {}).get("mlflow_run_id")
    return JobResponse(
        job_id=job.id,
        job_type=JobType(job.type),
        status=status,
        links=JobLinks(
            job=f"/jobs/{job.id}",
            prefect_run=services.prefect.run_url(run_id) if run_id else None,
            mlflow_run=services.models.run_url(mlflow_run_id) if mlflow_run_id else None,
        ),
        document_ids=list(queries.list_job_documents(session, [job.id])),
        triggered_by=job.triggered_by,
        note=job.note,
        created_at=job.created_at,
    )
