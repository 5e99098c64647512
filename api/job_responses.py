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
    return [_describe(services, job, statuses[job.id], documents[job.id]) for job in jobs]


def _describe(services: Services, job: Job, status: JobStatus, document_ids: list[str]) -> JobResponse:
    mlflow_run_id = job.outcome.mlflow_run_id if job.outcome else None
    return JobResponse(
        job_id=job.id,
        job_type=job.type,
        status=status,
        links=JobLinks(
            job=f"/jobs/{job.id}",
            prefect_run=services.prefect.get_url(job.run_id) if job.run_id else None,
            mlflow_run=_find_run_url(services, mlflow_run_id) if mlflow_run_id else None,
        ),
        document_ids=document_ids,
        triggered_by=job.triggered_by,
        note=job.note,
        created_at=job.created_at,
    )


def _find_run_url(services: Services, mlflow_run_id: str) -> str | None:
    """Return the address of a run; None if MLflow, which must be asked once, does not answer."""
    try:
        return services.models.get_run_url(mlflow_run_id)
    except UnavailableError:
        return None
