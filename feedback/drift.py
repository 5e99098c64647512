"""Drift: what versions lost, each by no more than chance, adds up."""

from typing import NamedTuple

from sqlmodel import Session, col, select

from registry.jobs import DECISION, MADE
from registry.outcome import Decision
from registry.tables import Job, JobType

_LATEST = 200  # jobs


class Drift(NamedTuple):
    """How many values versions lost and won, each against the champion before it."""

    lost: int = 0
    won: int = 0


def read_drift(session: Session) -> Drift:
    """Return what the latest promoted versions lost and won together, since they last had won as much as lost.

    What a person insisted on, and what was unlearned, is accepted: it starts anew (the one-sided CUSUM, Page, 1954).
    """
    query = select(Job).where(DECISION == Decision.PROMOTED, MADE.is_not(None)).order_by(col(Job.number).desc())
    drift, version = Drift(), None
    for job in reversed(session.exec(query.limit(_LATEST)).all()):
        challenger, effect = (job.outcome.challenger, job.outcome.effect) if job.outcome else (None, None)
        if job.insisted_by or job.type == JobType.UNLEARNING:
            drift = Drift()
        elif challenger and effect and challenger.version != version:
            drift = Drift(
                drift.lost + sum(change.worsened for change in effect.changes),
                drift.won + sum(change.improved for change in effect.changes),
            )
            if drift.won >= drift.lost:
                drift = Drift()
        version = challenger.version if challenger else version
    return drift
