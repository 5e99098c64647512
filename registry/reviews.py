"""Queries on reviews: which documents were reviewed, and which annotations no job was given yet."""

from collections.abc import Collection, Sequence

from sqlmodel import Session, col, func, or_, select

from registry.annotations import get_latest_annotations
from registry.jobs import select_documents_with_feedback
from registry.outcome import Decision
from registry.tables import Annotation, AnnotationStatus, Document, Job, JobDocument, JobType

_UNDECIDED = {Decision.FAILED, Decision.CANCELLED}


def list_reviewed_documents(session: Session, statuses: Collection[AnnotationStatus]) -> Sequence[str]:
    """Return the documents with annotations of these statuses or feedback that counts, in the order of their upload."""
    annotated = select(Annotation.document_id).where(col(Annotation.status).in_(statuses))
    reviewed = or_(col(Document.id).in_(annotated), col(Document.id).in_(select_documents_with_feedback()))
    query = select(Document.id).where(reviewed).order_by(col(Document.created_at), col(Document.id))
    return session.exec(query).all()


def count_other_annotations(session: Session, statuses: Collection[AnnotationStatus]) -> int:
    """Return the number of annotations of all other statuses."""
    query = select(func.count()).select_from(Annotation).where(col(Annotation.status).not_in(statuses))
    return session.exec(query).one()


def list_untaught_documents(session: Session, document_ids: Sequence[str]) -> list[str]:
    """Return those of the documents whose approved annotations, as they are now, no job has taught or is to teach.

    A job that failed does not count; one that was set aside, refused or withdrawn does: a person decides about it.
    """
    query = select(JobDocument, Job).join(Job).where(col(JobDocument.document_id).in_(document_ids))
    of_reviews = query.where(col(Job.type).in_([JobType.FEEDBACK, JobType.TRAINING_RUN]))
    last = {row.document_id: (row, job) for row, job in session.exec(of_reviews.order_by(col(Job.number)))}
    lessons = get_latest_annotations(session, document_ids)

    def is_taught(document_id: str) -> bool:
        if document_id not in last:
            return False
        row, job = last[document_id]
        if job.outcome:
            is_decided = job.outcome.decision not in _UNDECIDED
            return is_decided and row.lesson is not None and row.lesson.spans == lessons[document_id].spans
        return row.lesson is None or row.lesson.spans == lessons[document_id].spans

    return [each for each in document_ids if lessons[each].annotations and not is_taught(each)]
