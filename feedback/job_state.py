"""The state of a job: its answer or, until it has one, the state of its flow run in Prefect."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from registry.outcome import Decision
from registry.tables import Job, JobType


class JobStatus(StrEnum):
    """How far a job, or a flow run, is."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class RunState:
    """The state of a flow run: Prefect's message, and when the run entered the state, None while it is scheduled."""

    status: JobStatus
    message: str | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class JobState:
    """The state of a job; `message` explains it to a person."""

    status: JobStatus
    message: str | None


def find_job_state(job: Job, runs: Mapping[str, RunState]) -> JobState:
    """Return the state of a job, given the states of the runs that Prefect knows, by their ids."""
    if job.outcome:
        effect = f" {job.outcome.effect.summary}" if job.outcome.effect else ""
        return JobState(_get_final_status(job.outcome.decision), job.outcome.reason + effect)
    run = runs.get(job.run_id or "")
    if run and job.type == JobType.UNLEARNING:
        run = _describe_unlearning(run)
    if run and run.status != JobStatus.FAILED:
        return JobState(run.status, run.message)
    failures, reason = job.failures, job.last_failure
    if run:
        failures, reason = failures + 1, run.message
    if not failures and job.lost_version:
        return JobState(JobStatus.PENDING, f"It is taught again, since MLflow has lost version {job.lost_version}")
    if not failures:
        return JobState(JobStatus.PENDING, "No run was launched yet")
    failed = f"{failures} run{'s' * (failures != 1)} failed, the last because: {reason}"
    return JobState(JobStatus.PENDING, f"Another run will be launched: {failed}")


def _describe_unlearning(run: RunState) -> RunState:
    """Return the state of the consolidation that is to answer a job: after it, a run on feedback answers the job."""
    if run.status == JobStatus.COMPLETED:
        return RunState(JobStatus.RUNNING, run.message)
    if run.status == JobStatus.CANCELLED:
        return RunState(JobStatus.FAILED, "it was cancelled in Prefect")
    return run


def _get_final_status(decision: Decision) -> JobStatus:
    if decision == Decision.CANCELLED:
        return JobStatus.CANCELLED
    return JobStatus.FAILED if decision == Decision.FAILED else JobStatus.COMPLETED
