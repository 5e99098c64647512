"""What the tables tell an operator in numbers: jobs, how long feedback takes to serve, what waits, what is set aside."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, extract
from sqlmodel import Session, col, func, select

from registry.jobs import WAITING
from registry.outcome import Decision
from registry.tables import Job, JobDocument, JobType, WebhookDelivery

_SERVED = {Decision.PROMOTED, Decision.ROLLED_BACK}  # the latter was promoted before, so its time counts for good
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Figures:
    """The numbers of a whole installation.

    `answered` has the number of jobs by type and decision, `waiting` of those without an answer by type. `served_within`
    has, by seconds rounded up, how many jobs of feedback were promoted so long after they were stored, and
    `served_seconds` the sum of these times.
    """

    answered: Mapping[tuple[JobType, Decision], int]
    waiting: Mapping[JobType, int]
    oldest_waiting: datetime | None
    served_within: Mapping[int, int]
    served_seconds: float
    contradicted_documents: int
    waiting_deliveries: int
    oldest_delivery: datetime | None


def read_figures(session: Session) -> Figures:
    """Return the numbers."""
    answered, waiting = Counter[tuple[JobType, Decision]](), Counter[JobType]()
    served_within, served_seconds = Counter[int](), 0.0
    seconds = _select_seconds(session)
    whole = func.round(seconds + 0.5)
    groups = select(Job.type, Job.decision, whole, func.count(), func.sum(seconds)).group_by(
        col(Job.type), col(Job.decision), whole
    )
    for job_type, decision, within, count, total in session.exec(groups):
        if decision is None:
            waiting[JobType(job_type)] += count
            continue
        answered[JobType(job_type), Decision(decision)] += count
        if job_type == JobType.FEEDBACK and decision in _SERVED and within is not None:
            served_within[int(within)] += count
            served_seconds += float(total)
    contradicted = select(func.count()).select_from(JobDocument).where(col(JobDocument.contradiction).is_not(None))
    deliveries = select(func.count(), func.min(WebhookDelivery.created_at))
    waiting_deliveries, oldest_delivery = session.exec(
        deliveries.where(col(WebhookDelivery.next_attempt_at) > _BEGINNING)  # `is not null` uses no index of SQLite
    ).one()
    return Figures(
        answered=answered,
        waiting=waiting,
        oldest_waiting=session.exec(select(func.min(Job.created_at)).where(WAITING)).one(),
        served_within=served_within,
        served_seconds=served_seconds,
        contradicted_documents=session.exec(contradicted).one(),
        waiting_deliveries=waiting_deliveries,
        oldest_delivery=oldest_delivery,
    )


def _select_seconds(session: Session) -> ColumnElement[float]:
    """Select the time from a job to its answer; SQLite stores times as text."""
    created, answered = col(Job.created_at), col(Job.answered_at)
    if session.get_bind().dialect.name == "sqlite":
        return (func.julianday(answered) - func.julianday(created)) * 86_400
    return extract("epoch", answered - created)
