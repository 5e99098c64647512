"""What the tables tell an operator in numbers: jobs, how long feedback takes to serve, what is set aside or waits."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, extract
from sqlmodel import Session, col, func, select

from registry.jobs import WAITING
from registry.outcome import Decision
from registry.tables import Job, JobDocument, JobType, WebhookDelivery

_SERVED = {Decision.PROMOTED, Decision.ROLLED_BACK}  # the latter was promoted before: what was counted stays counted
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class JobCounts:
    """How many jobs there are: answered by type and decision, unanswered by type.

    `served_within` has, by seconds rounded up, how many jobs of feedback were promoted so long after they were stored;
    `served_seconds` is the sum of these times.
    """

    answered: Mapping[tuple[JobType, Decision], int]
    waiting: Mapping[JobType, int]
    served_within: Mapping[int, int]
    served_seconds: float


@dataclass(frozen=True)
class Figures:
    """The numbers of a whole installation; `contradicted_documents` were set aside while others of their job were not.

    A time is None if nothing waits.
    """

    jobs: JobCounts
    oldest_waiting: datetime | None
    contradicted_documents: int
    waiting_deliveries: int
    oldest_delivery: datetime | None


def read_figures(session: Session) -> Figures:
    """Return the numbers."""
    contradicted = select(func.count()).select_from(JobDocument).where(col(JobDocument.contradiction).is_not(None))
    deliveries = select(func.count(), func.min(WebhookDelivery.created_at))
    waits = col(WebhookDelivery.next_attempt_at) > _BEGINNING  # for `is not null` SQLite uses no index
    waiting_deliveries, oldest_delivery = session.exec(deliveries.where(waits)).one()
    return Figures(
        jobs=_count_jobs(session),
        oldest_waiting=session.exec(select(func.min(Job.created_at)).where(WAITING)).one(),
        contradicted_documents=session.exec(contradicted).one(),
        waiting_deliveries=waiting_deliveries,
        oldest_delivery=oldest_delivery,
    )


def _count_jobs(session: Session) -> JobCounts:
    """Count the jobs in one pass over an index, grouped by the whole seconds to their answers, too."""
    answered, waiting = Counter[tuple[JobType, Decision]](), Counter[JobType]()
    served_within, served_seconds = Counter[int](), 0.0
    seconds = _select_seconds(session)
    kind = col(Job.type), col(Job.decision), func.round(seconds + 0.5)
    groups = sqlalchemy.select(*kind, func.count(), func.sum(seconds)).group_by(*kind)
    for job_type, decision, within, count, total in session.connection().execute(groups):
        if decision is None:
            waiting[JobType(job_type)] += count
            continue
        answered[JobType(job_type), Decision(decision)] += count
        if job_type == JobType.FEEDBACK and decision in _SERVED and within is not None:
            served_within[int(within)] += count
            served_seconds += float(total)
    return JobCounts(answered, waiting, served_within, served_seconds)


def _select_seconds(session: Session) -> ColumnElement[Any]:
    """Select the time from a job to its answer; SQLite stores times as text."""
    created, answered = col(Job.created_at), col(Job.answered_at)
    if session.get_bind().dialect.name == "sqlite":
        return (func.julianday(answered) - func.julianday(created)) * 86_400
    return extract("epoch", answered - created)
