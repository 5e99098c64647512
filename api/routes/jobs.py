"""Jobs: the state, progress and outcome of feedback, training runs and consolidations."""

from collections.abc import Sequence
from contextlib import suppress

from fastapi import APIRouter, status
from sqlmodel import Session

from api.authentication import GuardedRoute
from api.dependencies import LimitDep, OffsetDep, ReaderDep, ServicesDep, SessionDep, TrainerDep
from api.errors import document_errors
from api.job_responses import build_job_response, build_job_responses
from api.schemas import JobDetail, JobResponse, Page
from api.services import Services
from feedback.job_state import JobState, JobStatus, find_job_state
from feedback.submission import check_queue_has_space, teach_again
from registry.errors import UnavailableError
from registry.jobs import get_job, list_contradictions, list_jobs
from registry.tables import Job, JobType
from registry.text_types import Text

router = APIRouter(tags=["jobs"], route_class=GuardedRoute)


@router.get("/jobs")
def read_jobs(
    session: SessionDep, services: ServicesDep, _: ReaderDep, offset: OffsetDep = 0, limit: LimitDep = 50
) -> Page[JobResponse]:
    """List all jobs, newest first."""
    return _respond_page(session, services, offset, limit)


@router.get("/training-runs")
def read_training_runs(
    session: SessionDep, services: ServicesDep, _: ReaderDep, offset: OffsetDep = 0, limit: LimitDep = 50
) -> Page[JobResponse]:
    """List the jobs that are training runs, newest first."""
    return _respond_page(session, services, offset, limit, JobType.TRAINING_RUN)


@router.get("/jobs/{job_id}", responses=document_errors(404))
def read_job(job_id: Text, session: SessionDep, services: ServicesDep, _: ReaderDep) -> JobDetail:
    """Read a job's status and progress and, at its end, its outcome."""
    job = get_job(session, job_id)
    state = _find_states(services, [job])[job.id]
    progress = 100.0 if job.outcome else 0.0
    if state.status == JobStatus.RUNNING and job.run_id:
        with suppress(UnavailableError):
            progress = services.prefect.read_progress(job.run_id)
    response = build_job_response(session, services, job, state.status)
    return JobDetail(
        **response.model_dump(),
        progress=progress,
        message=state.message,
        set_aside=list_contradictions(session, job.id),
        outcome=job.outcome,
    )


@router.post("/jobs/{job_id}/teach", status_code=status.HTTP_202_ACCEPTED, responses=document_errors(404, 409))
def teach_job(job_id: Text, session: SessionDep, services: ServicesDep, caller: TrainerDep) -> JobResponse:
    """Learn what is set aside or has failed, from the annotations as they are now. The answer is a new job.

    What contradicts what was learned, or was refused, is then learned all the same; the job names who insists.
    """
    job = get_job(session, job_id)
    check_queue_has_space(session, services.settings.max_waiting_jobs)
    again = teach_again(session, services.launcher, job, caller.name)
    return build_job_response(session, services, again, find_job_state(again, {}).status)


def _respond_page(
    session: Session, services: Services, offset: int, limit: int, job_type: JobType | None = None
) -> Page[JobResponse]:
    jobs, total = list_jobs(session, offset, limit, job_type)
    statuses = {job_id: state.status for job_id, state in _find_states(services, jobs).items()}
    items = build_job_responses(session, services, statuses, jobs)
    return Page(items=items, total=total, offset=offset, limit=limit)


def _find_states(services: Services, jobs: Sequence[Job]) -> dict[str, JobState]:
    """Return the state of each job by its id; one whose run has not answered it is pending while Prefect hangs."""
    run_ids = [job.run_id for job in jobs if not job.outcome and job.run_id]
    try:
        runs = services.prefect.read_states(run_ids) if run_ids else {}
    except UnavailableError as error:
        unknown = JobState(JobStatus.PENDING, str(error))
        return {job.id: find_job_state(job, {}) if job.outcome or not job.run_id else unknown for job in jobs}
    return {job.id: find_job_state(job, runs) for job in jobs}
