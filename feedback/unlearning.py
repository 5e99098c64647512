"""Unlearning: lessons are withdrawn or their documents deleted, and a version made without them answers the request."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from sqlalchemy import bindparam
from sqlmodel import Session, and_, col, func, or_, select, update

from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.representations import hash_text
from feedback.consolidation import HANDOVER_KEY, Candidate
from registry.audit import delete_old_values
from registry.documents import check_documents_exist
from registry.errors import ConflictError, InvalidInputError
from registry.jobs import MADE, UNANSWERED, UNLEARNINGS, add_job
from registry.lessons import RETRACTED
from registry.tables import DeletedDocument, Document, Job, JobDocument, JobType

_UNLEARNINGS = col(Job.type) == JobType.UNLEARNING
_AT_ONCE = 1000


@dataclass(frozen=True)
class Withdrawal:
    """What no model is to have learned: the lessons that meet all criteria given, None for any.

    A lesson is a reviewer's if its job was triggered in that name, or if it has an annotation of that reviewer. It is
    as old as its job.
    """

    document_ids: Sequence[str] | None = None
    reviewers: Sequence[str] | None = None
    since: datetime | None = None

    def describe(self) -> str:
        """Return what is withdrawn, in words."""
        documents = self.document_ids
        parts = [
            f"of {len(documents)} document{'s' * (len(documents) != 1)}" if documents else "",
            f"by {', '.join(self.reviewers)}" if self.reviewers else "",
            f"since {self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.since else "",
        ]
        return " ".join(part for part in parts if part)


def withdraw_lessons(session: Session, withdrawal: Withdrawal, triggered_by: str) -> Job:
    """Request a version that never learned some lessons; the caller commits.

    From now on, no run learns them, not even one that is to answer their jobs: what such a job waits to teach is
    withdrawn, too.

    Raises NotFoundError, or DeletedError, for an unknown document, InvalidInputError if there is no such lesson.
    """
    if withdrawal.document_ids:
        check_documents_exist(session, withdrawal.document_ids)
    job = add_job(session, JobType.UNLEARNING, [], triggered_by, f"Without what was taught {withdrawal.describe()}")
    lessons = [{"job": job_id, "document": document_id} for job_id, document_id in _find_lessons(session, withdrawal)]
    if not lessons:
        raise InvalidInputError(
            f"Nothing that counts was taught {withdrawal.describe()}: check the names in GET /jobs (`triggered_by`)"
        )
    same = and_(col(JobDocument.job_id) == bindparam("job"), col(JobDocument.document_id) == bindparam("document"))
    session.connection().execute(update(JobDocument).where(same).values(withdrawn_by=job.id), lessons)
    return job


def delete_document(session: Session, document: Document, deleted_by: str) -> DeletedDocument:
    """Delete a document with its annotations and lessons; if a run has read it, request a version without it.

    The caller has locked the document, and commits. Returns what is kept of the document.
    """
    delete_old_values(session, document.id)
    deleted = DeletedDocument(id=document.id, learned_from=_find_first_version(session, document.id))
    if deleted.learned_from:
        job = add_job(session, JobType.UNLEARNING, [], deleted_by, f"Without document {document.id}, which was deleted")
        deleted.unlearning_job_id, deleted.text_hash = job.id, hash_text(document.text)
    session.add(deleted)
    session.delete(document)
    return deleted


def claim_unlearnings(session: Session, flow_run_id: str) -> list[str]:
    """Claim the requests that no other consolidation has claimed for one that is about to read what is learned."""
    of_no_other = or_(col(Job.claiming_run_id).is_(None), col(Job.claiming_run_id) == flow_run_id)
    claimed = session.exec(
        update(Job)
        .where(UNLEARNINGS, of_no_other)
        .values(claiming_run_id=flow_run_id)
        .returning(col(Job.id))
        .execution_options(synchronize_session=False)
    )
    return list(claimed.scalars().all())


def is_unlearning_due(session: Session) -> bool:
    """Tell whether a request is unanswered: the champion has then learned what was withdrawn."""
    return session.exec(select(Job.id).where(UNLEARNINGS).limit(1)).first() is not None


def get_last_withdrawal(session: Session) -> int:
    """Return the number of the newest request, 0 if there is none."""
    return session.exec(select(func.max(col(Job.number))).where(_UNLEARNINGS)).one() or 0


def is_obsolete(session: Session, candidate: Candidate) -> bool:
    """Tell whether a request was answered that the candidate does not know: it may bring back what was unlearned."""
    later = col(Job.number) > candidate.withdrawals
    query = select(Job.id).where(_UNLEARNINGS, col(Job.outcome).is_not(None), later)
    return session.exec(query.limit(1)).first() is not None


def list_handed_over(session: Session, job_ids: Sequence[str]) -> list[str]:
    """Return the ids of the unanswered requests whose consolidation one of these jobs hands over."""
    handover = select(Job.idempotency_key).where(col(Job.id).in_(job_ids), Job.type == JobType.CONSOLIDATION)
    key = HANDOVER_KEY + col(Job.claiming_run_id)
    return list(session.exec(select(Job.id).where(UNLEARNINGS, key.in_(handover))))


def is_being_handed_over(session: Session, flow_run_id: str) -> bool:
    """Tell whether the job that hands a consolidation over is unanswered."""
    query = select(Job.id).where(UNANSWERED, Job.idempotency_key == f"{HANDOVER_KEY}{flow_run_id}")
    return session.exec(query).first() is not None


def list_deleted(session: Session, flow_run_id: str) -> Sequence[DeletedDocument]:
    """Return the deleted documents that a consolidation is to unlearn."""
    claimed = select(Job.id).where(UNLEARNINGS, Job.claiming_run_id == flow_run_id)
    return session.exec(select(DeletedDocument).where(col(DeletedDocument.unlearning_job_id).in_(claimed))).all()


def end_unlearning(session: Session, job_ids: Sequence[str], version: int, cache: DiskCache) -> None:
    """Store from which version on the documents of answered requests are unlearned.

    What this machine has cached of them is deleted, since a run may have read one while it was being deleted; then the
    hashes of their texts are needed no more.
    """
    of_requests = col(DeletedDocument.unlearning_job_id).in_(job_ids)
    for deleted in session.exec(select(DeletedDocument).where(of_requests)):
        delete_cached(cache, [deleted.text_hash])
        deleted.unlearned_from, deleted.text_hash = version, None
        session.add(deleted)


def delete_cached(cache: DiskCache, text_hashes: Iterable[str | None]) -> None:
    """Delete what this machine has cached of deleted texts; raises OSError if that is not possible."""
    for text_hash in text_hashes:
        if text_hash:
            cache.delete(text_hash)


def check_may_be_promoted(session: Session, version: int) -> None:
    """Raise ConflictError for a version that may have learned a deleted document."""
    query = select(DeletedDocument.learned_from, DeletedDocument.unlearned_from, DeletedDocument.id)
    query = query.where(col(DeletedDocument.learned_from).is_not(None))
    joined = list[tuple[int, float, str]]()  # intervals of versions, the end excluded, each with one of its documents
    for begin, end, document_id in session.exec(query.order_by(col(DeletedDocument.learned_from))):
        first, last, example = begin or 0, float(end or inf), document_id
        if joined and first <= joined[-1][1]:
            first, before, example = joined.pop()
            last = max(last, before)
        joined.append((first, last, example))
    for first, last, example in joined:
        if first <= version < last:
            earlier = f"before {first} or " if first > 1 else ""
            later = f"from {last:g} on" if last < inf else f"made without it: GET /documents/{example} says which"
            raise ConflictError(
                f"Version {version} may have learned a document that was deleted: promote a version {earlier}{later}"
            )


def _find_lessons(session: Session, withdrawal: Withdrawal) -> Iterator[tuple[str, str]]:
    """Find the lessons to withdraw: the ids of their jobs and documents."""
    withdrawn_by = col(JobDocument.withdrawn_by)
    may_be_learned = or_(withdrawn_by.is_(None), withdrawn_by == RETRACTED)
    query = select(JobDocument, Job.triggered_by).join(Job).where(may_be_learned)
    if withdrawal.document_ids:
        query = query.where(col(JobDocument.document_id).in_(withdrawal.document_ids))
    if withdrawal.since:
        query = query.where(col(Job.created_at) >= withdrawal.since.astimezone(UTC))
    for row, triggered_by in session.exec(query.execution_options(yield_per=_AT_ONCE)):
        names = {triggered_by, *(each.reviewer for each in (row.lesson.annotations if row.lesson else ()))}
        if not withdrawal.reviewers or not names.isdisjoint(withdrawal.reviewers):
            yield row.job_id, row.document_id


def _find_first_version(session: Session, document_id: str) -> int | None:
    """Return the first version that may have learned a document, None if no run has read it."""
    query = select(JobDocument, Job).join(Job).where(JobDocument.document_id == document_id)
    rows = session.exec(query.with_for_update(of=JobDocument)).all()  # a run may be reading it at this moment
    made = [job.outcome.challenger.version for _, job in rows if job.outcome and job.outcome.challenger]
    if versions := [int(version) for version in made if version]:
        return min(versions)
    if not any(row.read_by for row, _ in rows):
        return None
    newest = session.exec(select(MADE).where(MADE.is_not(None)).order_by(col(Job.number).desc()).limit(1)).first()
    return int(newest or 0) + 1
