"""Jobs and outcomes for the tests of the rules on them."""

from datetime import UTC, datetime

from sqlmodel import Session

from embeddinggemma_feasibility.evaluation import Evaluation
from feedback.claiming import find_unlaunched_job
from registry.jobs import add_job
from registry.lessons import take_lessons
from registry.outcome import Decision, ModelScores, Outcome
from registry.tables import Job, JobType
from tests.registry.test_annotations import add_document


def outcome(decision: Decision = Decision.PROMOTED) -> Outcome:
    scores = ModelScores(version="1", score=1.0, unseen=Evaluation())
    return Outcome(decision=decision, reason="because", flow_run_id="run", challenger=scores)


def add_feedback(session: Session, name: str) -> tuple[Job, str]:
    document = add_document(session, name)
    return add_read_job(session, JobType.FEEDBACK, document.id), document.id


def add_read_job(session: Session, job_type: JobType, document_id: str) -> Job:
    """Add a job on a document, and read what it teaches as a run does."""
    job = add_job(session, job_type, [document_id], "tester")
    take_lessons(session, [job.id], "run")
    return job


def find_waiting_job(session: Session) -> Job | None:
    """Return the job that is next to be launched, though it may be paused."""
    return find_unlaunched_job(session, datetime.now(UTC), longest_pause_seconds=0)
