"""What follows from a promotion by a person: what its version has not learned is set aside, the rest counts again."""

from sqlmodel import Session, col, select

from registry.outcome import Decision
from registry.tables import Job

_DECISION = col(Job.outcome)["decision"].as_string()
_MADE = col(Job.outcome)["challenger"]["version"].as_string()
_FROM = col(Job.outcome)["champion"]["version"].as_string()
_BEFORE = " Before: "


def follow_promotion(session: Session, version: str, by: str) -> list[str]:
    """Set aside the feedback that a promoted version has not learned, and return the ids of its jobs, oldest first.

    It has learned what it and the versions it comes from learned: refused or set aside feedback among that counts as
    learned. Nothing changes if no answered job made the version.
    """
    query = select(Job.id, _MADE, _FROM, _DECISION).where(_MADE.is_not(None)).order_by(col(Job.number))
    jobs = session.exec(query).all()
    parents = {made: parent for _, made, parent, _ in jobs}
    if version not in parents:
        return []
    learned: set[str] = set()
    origin: str | None = version
    while origin and origin not in learned:
        learned.add(origin)
        origin = parents.get(origin)
    set_aside = [job_id for job_id, made, _, decision in jobs if made not in learned and decision == Decision.PROMOTED]
    for job_id in set_aside:
        again = "To learn it again, send the feedback again or POST /jobs/{job_id}/teach."
        _change(session, job_id, Decision.ROLLED_BACK, f"Set aside: {by} went back to version {version}. {again}")
    for job_id, made, _, decision in jobs:
        if made in learned and decision in {Decision.NOT_PROMOTED, Decision.ROLLED_BACK}:
            _change(session, job_id, Decision.PROMOTED, f"Promoted by {by}.")
    return set_aside


def notice_promotion(session: Session, champion: str | None) -> list[str]:
    """Follow a promotion that somebody made in MLflow, by moving the alias; return the ids of the jobs set aside."""
    promoted = select(_MADE).where(_DECISION == Decision.PROMOTED, _MADE.is_not(None))
    latest = session.exec(promoted.order_by(col(Job.number).desc()).limit(1)).first()
    return [] if champion is None or champion == latest else follow_promotion(session, champion, "somebody in MLflow")


def _change(session: Session, job_id: str, decision: Decision, reason: str) -> None:
    job = session.get_one(Job, job_id)
    if job.outcome:
        reason += _BEFORE + job.outcome.reason.rsplit(_BEFORE, 1)[-1]
        job.outcome = job.outcome.model_copy(update={"decision": decision, "reason": reason})
        session.add(job)
