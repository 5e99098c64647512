"""What jobs teach: a run reads a document's annotations once, and later runs learn again what it has read."""

from collections.abc import Mapping, Sequence
from itertools import islice

from sqlmodel import Session, col, func, select

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from registry.annotations import get_latest_annotations
from registry.jobs import LEARNED
from registry.tables import Document, Job, JobDocument

_AT_ONCE = 10_000  # SQLite takes 32,766 values in a query
_COUNTS = col(JobDocument.withdrawn_by).is_(None)


def take_lessons(session: Session, job_ids: Sequence[str], flow_run_id: str) -> None:
    """Store what the jobs teach, as their documents are annotated now; a run that is retried reads nothing again."""
    query = select(JobDocument).where(col(JobDocument.job_id).in_(job_ids))
    rows = session.exec(query.where(col(JobDocument.read_by).is_distinct_from(flow_run_id))).all()
    latest = get_latest_annotations(session, list({row.document_id for row in rows}))
    for row in rows:
        row.lesson, row.read_by, row.contradiction = latest[row.document_id], flow_run_id, None
        session.add(row)
    session.flush()


def list_lessons(session: Session, job_ids: Sequence[str]) -> dict[str, str]:
    """Return the jobs' documents in the order of their upload, each with the newest of these jobs on it.

    What was withdrawn while its job waited is left out.
    """
    query = select(JobDocument.document_id, JobDocument.job_id).join(Document).join(Job)
    query = query.where(col(JobDocument.job_id).in_(job_ids), _COUNTS)
    return dict(session.exec(query.order_by(col(Document.created_at), col(Job.number))).all())


def list_learned_lessons(session: Session, since: int = 0) -> dict[str, str]:
    """Return the learned documents, each with the job that taught it last, in the order of these jobs.

    What was refused, set aside or withdrawn is not learned: a document then counts as its last promoted job taught it.

    With `since`, only documents whose job has a greater number.
    """
    decision = col(Job.outcome)["decision"].as_string()
    recency = func.row_number().over(partition_by=JobDocument.document_id, order_by=col(Job.number).desc())
    query = select(JobDocument.document_id, JobDocument.job_id, Job.number, recency.label("recency")).join(Job)
    taught = col(JobDocument.lesson).is_not(None), col(JobDocument.contradiction).is_(None)
    last = query.where(decision.in_(LEARNED), *taught, _COUNTS).subquery()
    learned = select(last.c.document_id, last.c.job_id).join(Document, col(Document.id) == last.c.document_id)
    learned = learned.where(last.c.recency == 1, last.c.number > since)
    return dict(session.exec(learned.order_by(last.c.number, col(Document.created_at))).all())


def load_lessons(session: Session, lessons: Mapping[str, str]) -> list[AnnotationData]:
    """Return what jobs teach, in the order of `lessons`: the job of each document; deleted documents are left out."""
    found = dict[str, AnnotationData]()
    remaining = iter(lessons)
    while some := list(islice(remaining, _AT_ONCE)):
        query = select(JobDocument, Document.text).join(Document).where(col(JobDocument.document_id).in_(some))
        jobs = col(JobDocument.job_id).in_({lessons[document_id] for document_id in some})
        for row, text in session.exec(query.where(jobs)):
            if row.lesson and lessons[row.document_id] == row.job_id:
                spans = (Span(each.start, each.end, each.type) for each in row.lesson.annotations)
                reviewed = frozenset(row.lesson.reviewed_types)
                found[row.document_id] = AnnotationData(row.document_id, text, tuple(sorted(spans)), reviewed)
    return [found[document_id] for document_id in lessons if document_id in found]
