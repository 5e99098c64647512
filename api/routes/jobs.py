"""Jobs: the state, progress and outcome of feedback, training runs and consolidations."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, status
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlmodel import Session

from api.authentication import GuardedRoute
from api.dependencies import LimitDep, OffsetDep, ReaderDep, ServicesDep, SessionDep, TrainerDep
from api.errors import document_errors
from api.job_responses import (
    build_job_details,
    build_job_response,
    build_job_responses,
    find_state,
    read_runs,
    read_states,
)
from api.job_watcher import JobWatcher
from api.schemas import JobDetail, JobResponse, Page
from api.services import Services
from feedback.job_state import find_job_state
from feedback.submission import check_queue_has_space, teach_again
from registry.jobs import get_job, list_jobs
from registry.tables import Job, JobType
from registry.text_types import Text

router = APIRouter(tags=["jobs"], route_class=GuardedRoute)


@router.get("/jobs")
def read_jobs(
    session: SessionDep,
    services: ServicesDep,
    _: ReaderDep,
    offset: OffsetDep = 0,
    limit: LimitDep = 50,
    document_id: Annotated[Text | None, Query(description="Only jobs on this document")] = None,
) -> Page[JobResponse]:
    """List all jobs, newest first."""
    return _respond_page(session, services, list_jobs(session, offset, limit, document_id=document_id), offset, limit)


@router.get("/training-runs")
def read_training_runs(
    session: SessionDep, services: ServicesDep, _: ReaderDep, offset: OffsetDep = 0, limit: LimitDep = 50
) -> Page[JobResponse]:
    """List the jobs that are training runs, newest first."""
    return _respond_page(session, services, list_jobs(session, offset, limit, JobType.TRAINING_RUN), offset, limit)


def _read_detail(job_id: Text, session: SessionDep, services: ServicesDep) -> JobDetail:
    job = get_job(session, job_id)
    (detail,) = build_job_details(session, services, [job], read_runs(services.prefect, _list_runs([job])))
    return detail


@router.get("/jobs/{job_id}", responses=document_errors(404))
def read_job(job_id: Text, session: SessionDep, services: ServicesDep, _: ReaderDep) -> JobDetail:
    """Read a job's status and progress and, at its end, its outcome."""
    return _read_detail(job_id, session, services)


class _Events(EventSourceResponse):
    """Server-sent events; FastAPI documents errors with the media type of this class, and they are JSON."""

    media_type = "application/json"


async def _get_watcher(request: Request) -> JobWatcher:
    watcher: JobWatcher = request.app.state.job_watcher
    return watcher


@router.get("/jobs/{job_id}/events", response_class=_Events, responses=document_errors(404))
async def read_job_events(
    first: Annotated[JobDetail, Depends(_read_detail)],
    caller: ReaderDep,
    watcher: Annotated[JobWatcher, Depends(_get_watcher)],
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job as server-sent events.

    The data of an event `job` is what `GET /jobs/{job_id}` answers: one comes at once, and one for each change of the
    status, progress, message or outcome. The event `end` comes last, with the `reason`: the job is answered, or there
    is no such job or key any more. Close the EventSource then, since it would connect again. It should do so if the
    stream breaks off without that event: the API is being restarted.
    """
    async for event in watcher.follow(first, caller.key_id):
        yield event


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
    session: Session, services: Services, found: tuple[Sequence[Job], int], offset: int, limit: int
) -> Page[JobResponse]:
    jobs, total = found
    runs = read_states(services.prefect, _list_runs(jobs))
    items = build_job_responses(session, services, {job.id: find_state(job, runs).status for job in jobs}, jobs)
    return Page(items=items, total=total, offset=offset, limit=limit)


def _list_runs(jobs: Sequence[Job]) -> list[str]:
    """Return the runs that are to answer the jobs."""
    return [job.run_id for job in jobs if job.run_id and not job.outcome]
