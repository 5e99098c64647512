"""Jobs as clients see them."""

from collections.abc import Mapping, Sequence

from sqlmodel import Session

from api.schemas import JobLinks, JobResponse
from api.services import Services
from feedback.job_state import JobStatus
from registry.errors import UnavailableError
from registry.jobs import list_documents_by_job
from registry.tables import Job


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
            mlflow_run=f"{runs_url}{mlflow_run_id}" if runs_url and mlflow_run_id else None,
        ),
        document_ids=document_ids,
        triggered_by=job.triggered_by,
        insisted_by=job.insisted_by,
        note=job.note,
        created_at=job.created_at,
    )


def _find_runs_url(services: Services, jobs: Sequence[Job]) -> str | None:
    """Return the address of the runs in MLflow, which is asked for it once; None if there is none, or no answer."""
    if not any(job.outcome and job.outcome.mlflow_run_id for job in jobs):
        return None
    try:
        return services.models.get_runs_url()
    except UnavailableError:
        return None
