"""Queries on jobs, the requests to learn; how runs claim and answer them is in `feedback/claiming.py`."""

from collections.abc import Sequence
from enum import StrEnum

import sqlalchemy
from sqlalchemy import ColumnElement, Subquery, case, true
from sqlalchemy.orm import aliased
from sqlmodel import Session, and_, col, func, not_, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from registry.errors import NotFoundError
from registry.outcome import LEARNED, Decision
from registry.tables import Document, Job, JobDocument, JobType, ListedDocument

MOST_DOCUMENTS = 10_000  # of a job: SQLite takes 32,766 values in a query, Prefect 512 KB of parameters
DECISION = col(Job.decision)
MADE = col(Job.outcome)["challenger"]["version"].as_string()  # the version
UNANSWERED = col(Job.outcome).is_(None)
_IS_SET_ASIDE = or_(
    DECISION.in_([Decision.NOT_PROMOTED, Decision.ROLLED_BACK]),
    col(JobDocument.contradiction).is_not(None),
    col(JobDocument.withdrawn_by).is_not(None),
)
WAITING = and_(UNANSWERED, Job.type != JobType.UNLEARNING)  # for a run on feedback
UNLEARNINGS = and_(UNANSWERED, Job.type == JobType.UNLEARNING)  # for a consolidation


def add_job(
    session: Session, job_type: JobType, document_ids: Sequence[str], triggered_by: str, note: str | None = None
) -> Job:
    """Add a job; once it is committed, a flow run will be launched for it."""
    job = Job(type=job_type, triggered_by=triggered_by, note=note)
    session.add(job)
    session.flush()
    session.add_all(JobDocument(job_id=job.id, document_id=document_id) for document_id in document_ids)
    session.flush()
    return job


def get_job(session: Session, job_id: str) -> Job:
    """Return a job; raises NotFoundError."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"There is no job {job_id}")
    return job


def find_job_by_key(session: Session, idempotency_key: str) -> Job | None:
    """Return the job with this idempotency key."""
    return session.exec(select(Job).where(Job.idempotency_key == idempotency_key)).first()


def find_last_feedback(session: Session, document_id: str) -> Job | None:
    """Return the job of the document's last feedback."""
    query = select(Job).join(JobDocument).where(JobDocument.document_id == document_id, Job.type == JobType.FEEDBACK)
    return session.exec(query.order_by(col(Job.number).desc()).limit(1)).first()


def select_documents_with_feedback() -> SelectOfScalar[str]:
    """Select the ids of the documents on which there is feedback that counts."""
    query = select(JobDocument.document_id).join(Job).where(Job.type == JobType.FEEDBACK)
    return query.where(col(JobDocument.withdrawn_by).is_(None)).distinct()


def list_jobs(
    session: Session, offset: int, limit: int, job_type: JobType | None = None, document_id: str | None = None
) -> tuple[Sequence[Job], int]:
    """Return one page of the jobs, or of those of a type and on a document, newest first, and the number of all."""
    query, count = select(Job), select(func.count()).select_from(Job)
    if job_type:
        query, count = query.where(Job.type == job_type), count.where(Job.type == job_type)
    if document_id:
        of_document = col(Job.id).in_(select(JobDocument.job_id).where(JobDocument.document_id == document_id))
        query, count = query.where(of_document), count.where(of_document)
    page = session.exec(query.order_by(col(Job.number).desc()).offset(offset).limit(limit)).all()
    return page, session.exec(count).one()


def list_job_documents(session: Session, job_ids: Sequence[str]) -> Sequence[str]:
    """Return the ids of the jobs' documents, each once, in the order of their upload."""
    query = select(Document.id).join(JobDocument).where(col(JobDocument.job_id).in_(job_ids))
    return list(dict.fromkeys(session.exec(query.order_by(col(Document.created_at))).all()))


def list_contradictions(session: Session, job_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the documents of each job that were set aside, with the contradiction for which each was."""
    by_job: dict[str, dict[str, str]] = {job_id: {} for job_id in job_ids}
    query = select(JobDocument).where(col(JobDocument.job_id).in_(job_ids))
    for row in session.exec(query.where(col(JobDocument.contradiction).is_not(None))):
        by_job[row.job_id][row.document_id] = str(row.contradiction)
    return by_job


def list_documents_by_job(session: Session, job_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of each job's documents, in the order of their upload."""
    query = select(JobDocument.job_id, Document.id).join(Document).where(col(JobDocument.job_id).in_(job_ids))
    by_job: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    for job_id, document_id in session.exec(query.order_by(col(Document.created_at))):
        by_job[job_id].append(document_id)
    return by_job


def list_answered_jobs(session: Session, run_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of the jobs that each of these runs answered, oldest first."""
    by_run: dict[str, list[str]] = {}
    query = select(Job.claiming_run_id, Job.id).where(col(Job.claiming_run_id).in_(run_ids), not_(UNANSWERED))
    for run_id, job_id in session.exec(query.order_by(col(Job.number))):
        by_run.setdefault(str(run_id), []).append(job_id)
    return by_run


def count_waiting_jobs(session: Session) -> int:
    """Return the number of jobs without an answer, apart from those of the type `unlearning`."""
    return session.exec(select(func.count()).select_from(Job).where(WAITING)).one()


def get_snapshot(session: Session) -> int:
    """Return the greatest number such that all jobs up to it are answered, 0 if there is none.

    Those of the type `unlearning` do not count: they teach nothing.
    """
    first_unanswered = session.exec(select(func.min(col(Job.number))).where(WAITING)).one()
    if first_unanswered:
        return first_unanswered - 1
    return session.exec(select(func.max(col(Job.number)))).one() or 0


class DocumentState(StrEnum):
    """What became of the last feedback on a document."""

    LEARNED = "learned"
    SET_ASIDE = "set_aside"


def select_documents_in(state: DocumentState) -> ColumnElement[bool]:
    """Return a condition on `ListedDocument`: that it is in a state, and that no job of its document waits."""
    last = _select_last_answers(true())
    of_state = last.c.is_promoted if state == DocumentState.LEARNED else last.c.is_set_aside
    waiting = select(JobDocument.document_id).join(Job).where(WAITING)
    in_state = select(last.c.document_id).where(of_state)
    listed = col(ListedDocument.document_id)
    return and_(listed.in_(in_state), listed.not_in(waiting))


class Review(StrEnum):
    """How far the review of a document is."""

    NEW = "new"
    WAITING = "waiting"
    SET_ASIDE = "set_aside"
    CHANGED = "changed"
    REVIEWED = "reviewed"


def select_review(document_ids: Sequence[str]) -> ColumnElement[str]:
    """Return the review of a `ListedDocument`, which must be one of these."""
    among = col(JobDocument.document_id).in_(document_ids)
    whens = [(condition, review.value) for review, condition in _list_review_conditions(among)]
    return case(*whens, else_=Review.REVIEWED.value)


def is_in_review(review: Review) -> ColumnElement[bool]:
    """Return the condition that the review of a `ListedDocument` is this far; `new` and `waiting` are found fast."""
    earlier = list[ColumnElement[bool]]()
    for each, condition in _list_review_conditions(true()):
        if each == review:
            return and_(*earlier, condition)
        earlier.append(not_(condition))
    return and_(*earlier)


def _list_review_conditions(among: ColumnElement[bool]) -> list[tuple[Review, ColumnElement[bool]]]:
    """Return conditions on `ListedDocument`: the first that holds says its review; without one, it is `reviewed`."""
    document_id, of_jobs = col(ListedDocument.document_id), select(JobDocument.document_id).where(among)
    ever_set_aside = of_jobs.join(Job).where(_IS_SET_ASIDE)
    last = _select_last_answers(col(JobDocument.document_id).in_(ever_set_aside))
    is_changed = col(ListedDocument.annotated_sha256).is_distinct_from(col(ListedDocument.taught_sha256))
    return [
        (Review.NEW, document_id.not_in(of_jobs)),
        (Review.WAITING, document_id.in_(of_jobs.join(Job).where(WAITING))),
        (Review.SET_ASIDE, document_id.in_(select(last.c.document_id).where(last.c.is_set_aside))),
        (Review.CHANGED, is_changed),
    ]


def _select_last_answers(among: ColumnElement[bool]) -> Subquery:
    """Select each document's last answered job: its number, whether it was promoted, and whether it is set aside.

    A training run that was refused leaves those documents as they were to which it brought no new annotations. What was
    withdrawn is set aside.
    """
    contradiction, withdrawn = col(JobDocument.contradiction), col(JobDocument.withdrawn_by).is_not(None)
    is_promoted = and_(DECISION.in_(LEARNED), contradiction.is_(None), not_(withdrawn))
    is_rolled_back = DECISION == Decision.ROLLED_BACK
    is_refused_run = and_(Job.type == JobType.TRAINING_RUN, not_(is_promoted), not_(is_rolled_back))
    recency = func.row_number().over(partition_by=JobDocument.document_id, order_by=col(Job.number).desc())
    answers = (
        sqlalchemy.select(
            col(JobDocument.document_id),
            col(Job.number),
            is_promoted.label("is_promoted"),
            _IS_SET_ASIDE.label("is_set_aside"),
            recency.label("recency"),
        )
        .join(Job)
        .where(among, not_(UNANSWERED), or_(not_(is_refused_run), _brings_new_annotations()))
        .subquery()
    )
    return sqlalchemy.select(answers).where(answers.c.recency == 1).subquery()


def _brings_new_annotations() -> ColumnElement[bool]:
    """Return the condition that a job teaches other annotations of a document than the job answered before it."""
    earlier, earlier_job = aliased(JobDocument), aliased(Job)
    taught, taught_before = (col(row.lesson)["annotations"].as_string() for row in (JobDocument, earlier))
    before = (
        sqlalchemy.select(taught_before)
        .join(earlier_job)
        .where(col(earlier.document_id) == JobDocument.document_id, col(earlier_job.number) < col(Job.number))
        .where(col(earlier_job.outcome).is_not(None))
        .order_by(col(earlier_job.number).desc())
        .limit(1)
        .correlate(JobDocument, Job)
    )
    return and_(taught.is_not(None), taught.is_distinct_from(before.scalar_subquery()))
