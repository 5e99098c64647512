"""Jobs as clients see them."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sqlmodel import Session

from api.schemas import JobDetail, JobLinks, JobResponse
from api.services import Services
from feedback.job_state import JobState, JobStatus, RunState, find_job_state
from feedback.prefect_runs import PrefectRuns
from registry.errors import UnavailableError
from registry.jobs import list_contradictions, list_documents_by_job
from registry.tables import Job


@dataclass(frozen=True)
class Runs:
    """What Prefect says of the runs that it was asked for: the states of those it knows, the progress of some.

    `problem` says why it did not answer.
    """

    asked: Collection[str] = ()
    states: Mapping[str, RunState] = field(default_factory=dict)
    progress: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None


def read_states(prefect: PrefectRuns, run_ids: Collection[str]) -> Runs:
    """Ask Prefect for the states of runs."""
    try:
        return Runs(run_ids, prefect.read_states(run_ids) if run_ids else {})
    except UnavailableError as error:
        return Runs(run_ids, problem=str(error))


def read_runs(prefect: PrefectRuns, run_ids: Collection[str]) -> Runs:
    """Ask Prefect for the states of runs, and the progress of those that are running."""
    runs = read_states(prefect, run_ids)
    running = [run_id for run_id, state in runs.states.items() if state.status == JobStatus.RUNNING]
    with suppress(UnavailableError):
        return replace(runs, progress=prefect.read_progress(running) if running else {})
    return runs


def find_state(job: Job, runs: Runs) -> JobState:
    """Return the state of a job; one whose run has not answered it is pending while Prefect hangs."""
    if runs.problem and job.run_id and not job.outcome:
        return JobState(JobStatus.PENDING, runs.problem)
    return find_job_state(job, runs.states)


def find_progress(job: Job, state: JobState, runs: Runs) -> float:
    """Return the progress of a job in percent."""
    if job.outcome:
        return 100.0
    return runs.progress.get(job.run_id or "", 0.0) if state.status == JobStatus.RUNNING else 0.0


def build_job_details(session: Session, services: Services, jobs: Sequence[Job], runs: Runs) -> list[JobDetail]:
    """Return jobs with their progress and outcome."""
    states = {job.id: find_state(job, runs) for job in jobs}
    responses = build_job_responses(session, services, {job_id: state.status for job_id, state in states.items()}, jobs)
    set_aside = list_contradictions(session, [job.id for job in jobs])
    return [
        JobDetail(
            **response.model_dump(),
            progress=find_progress(job, states[job.id], runs),
            message=states[job.id].message,
            set_aside=set_aside[job.id],
            outcome=job.outcome,
        )
        for job, response in zip(jobs, responses, strict=True)
    ]


def build_job_response(session: Session, services: Services, job: Job, status: JobStatus) -> JobResponse:
    """Return a job with links to its runs."""
    (response,) = build_job_responses(session, services, {job.id: status}, [job])
    return response


def build_job_responses(
    session: Session, services: Services, statuses: Mapping[str, JobStatus], jobs: Sequence[Job]
) -> list[JobResponse]:
    """Return jobs with links to their runs; `statuses` are by the jobs' ids."""
    documents = list_documents_by_job(session, [job.id for job in jobs])
    runs_url = _find_runs_url(services, jobs)
    return [_describe(services, job, statuses[job.id], documents[job.id], runs_url) for job in jobs]


def _describe(
    services: Services, job: Job, status: JobStatus, document_ids: list[str], runs_url: str | None
) -> JobResponse:
    mlflow_run_id = job.outcome.mlflow_run_id if job.outcome else None
    return JobResponse(
        job_id=job.id,
        job_type=job.type,
        status=status,
        links=JobLinks(
            job=f"/jobs/{job.id}",
            prefect_run=services.prefect.get_url(job.run_id) if job.run_id else None,
            mlflow_run=runs_url.format(mlflow_run_id) if runs_url and mlflow_run_id else None,
        ),
        document_ids=document_ids,
        triggered_by=job.triggered_by,
        insisted_by=job.insisted_by,
        note=job.note,
        created_at=job.created_at,
        live_version=job.outcome.live_version if job.outcome else None,
        lost_version=job.lost_version,
    )


def _find_runs_url(services: Services, jobs: Sequence[Job]) -> str | None:
    """Return the address of a run, {} for its id, in MLflow, which is asked once; None without a run or an answer."""
    if not any(job.outcome and job.outcome.mlflow_run_id for job in jobs):
        return None
    try:
        return services.models.get_runs_url()
    except UnavailableError:
        return None
