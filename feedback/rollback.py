"""What follows from a promotion by a person: what its version has not learned is set aside, the rest counts again."""

from sqlmodel import Session, col, select

from feedback.announcements import announce_jobs, announce_promotion
from feedback.time_limits import utc_now
from feedback.versions import FROM, find_newest_promoted, trace
from registry.jobs import DECISION, MADE
from registry.outcome import Decision
from registry.tables import Job, JobType

_BEFORE = " Before: "


def follow_promotion(session: Session, version: str, by: str, champion: str | None = None) -> list[str]:
    """Set aside the feedback that a promoted version has not learned, and return the ids of its jobs, oldest first.

    It has learned what it and the versions it comes from learned: refused or set aside feedback among that counts as
    learned. No job changes if no answered job made the version. Webhooks are told of the new champion unless it is
    the same as `champion`, the one before, and no job changes.
    """
    set_aside, brought_back = _change_jobs(session, version, by)
    if set_aside or brought_back or version != champion:
        announce_promotion(session, version, champion, f"A person promoted version {version}.", set_aside)
    return set_aside


def notice_promotion(session: Session, champion: str | None) -> list[str]:
    """Follow a promotion that somebody made in MLflow, by moving the alias; return the ids of the jobs set aside."""
    latest = find_newest_promoted(session)
    if champion is None or champion == latest:
        return []
    set_aside, brought_back = _change_jobs(session, champion, "somebody in MLflow")
    if set_aside or brought_back:
        announce_promotion(session, champion, latest, f"A person promoted version {champion} in MLflow.", set_aside)
    return set_aside


def _change_jobs(session: Session, version: str, by: str) -> tuple[list[str], list[str]]:
    """Return the ids of the jobs that are set aside, and of those that count as learned again."""
    teaches = Job.type != JobType.UNLEARNING
    query = select(Job.id, MADE, FROM, DECISION).where(MADE.is_not(None), teaches).order_by(col(Job.number))
    jobs = session.exec(query).all()
    parents = {made: parent for _, made, parent, _ in jobs}
    if version not in parents:
        return [], []
    learned = trace(version, parents)
    set_aside = {job_id: made for job_id, made, _, old in jobs if made not in learned and old == Decision.PROMOTED}
    for job_id in set_aside:
        again = "To learn it again, send the feedback again or POST /jobs/{job_id}/teach."
        _change(session, job_id, Decision.ROLLED_BACK, f"Set aside: {by} went back to version {version}. {again}")
    refused = {Decision.NOT_PROMOTED, Decision.ROLLED_BACK}
    brought_back = {job_id: made for job_id, made, _, old in jobs if made in learned and old in refused}
    for job_id in brought_back:
        _change(session, job_id, Decision.PROMOTED, f"Promoted by {by}.")
    announce_jobs(session, Decision.ROLLED_BACK, set_aside, f"A person went back to version {version}.")
    announce_jobs(session, Decision.PROMOTED, brought_back, f"A person promoted version {version}.")
    return list(set_aside), list(brought_back)


def _change(session: Session, job_id: str, decision: Decision, reason: str) -> None:
    job = session.get_one(Job, job_id)
    if job.outcome:
        if job.outcome.decision == Decision.NOT_PROMOTED:  # it serves for the first time
            job.answered_at = utc_now()
        reason += _BEFORE + job.outcome.reason.rsplit(_BEFORE, 1)[-1]
        job.outcome = job.outcome.model_copy(update={"decision": decision, "reason": reason})
        session.add(job)
