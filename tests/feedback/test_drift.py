"""What the latest versions lost together."""

from sqlmodel import Session

from feedback.claiming import answer_jobs
from feedback.drift import Drift, read_drift
from registry.outcome import Decision, DocumentChange, Effect
from registry.tables import Job
from tests.feedback.jobs import add_feedback, outcome


def learn(session: Session, version: int, lost: int, won: int, jobs: int = 1, **fields: str) -> None:
    """Have a version learn jobs, which loses and wins values against the one before it."""
    changes = [DocumentChange(document_id="a", type="party", improved=won, worsened=lost)]
    made = outcome(Decision.PROMOTED)
    assert made.challenger
    challenger = made.challenger.model_copy(update={"version": str(version)})
    made = made.model_copy(update={"challenger": challenger, "effect": Effect.summarise({}, changes)})
    for number in range(jobs):
        job: Job = add_feedback(session, f"{version} {number}")[0]
        job.sqlmodel_update(fields)
        session.add(job)
        answer_jobs(session, [job.id], made)
    session.expire_all()


def test_losses_add_up_over_versions_until_they_are_won_back(session: Session) -> None:
    assert read_drift(session) == Drift()
    learn(session, 1, lost=1, won=5)
    learn(session, 2, lost=6, won=2, jobs=3)
    learn(session, 3, lost=4, won=1)
    assert read_drift(session) == Drift(lost=10, won=3)
    learn(session, 4, lost=0, won=8)
    assert read_drift(session) == Drift()


def test_what_a_person_insists_on_starts_anew(session: Session) -> None:
    learn(session, 1, lost=6, won=2)
    learn(session, 2, lost=20, won=0, insisted_by="ana")
    learn(session, 3, lost=2, won=1)
    assert read_drift(session) == Drift(lost=2, won=1)
