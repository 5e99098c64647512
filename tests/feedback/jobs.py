"""Jobs and outcomes for the tests of the rules on them."""

from datetime import UTC, datetime

from sqlmodel import Session

from embeddinggemma_feasibility.evaluation import Evaluation
from feedback.claiming import find_unlaunched_job
from registry.jobs import add_job
from registry.outcome import Decision, ModelScores, Outcome
from registry.tables import Job, JobType
from tests.registry.test_annotations import add_document


def outcome(decision: Decision = Decision.PROMOTED) -> Outcome:
    scores = ModelScores(version="1", score=1.0, unseen=Evaluation())
    return Outcome(decision=decision, reason="because", flow_run_id="run", challenger=scores)


def add_feedback(session: Session, name: str) -> tuple[Job, str]:
    document = add_document(session, name)
    return add_job(session, JobType.FEEDBACK, [document.id], "tester"), document.id


def find_waiting_job(session: Session) -> Job | None:
    """Return the job that is next to be launched, though it may be paused."""
    return find_unlaunched_job(session, datetime.now(UTC), longest_pause_seconds=0)
