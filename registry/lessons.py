"""What jobs teach: annotations as they were when the job was made, or first read; later runs learn the same again."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import islice

from sqlmodel import Session, col, func, select, update

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from registry.annotations import get_latest_annotations, list_types_by_document
from registry.jobs import DECISION
from registry.outcome import LEARNED
from registry.tables import AuditEntry, Document, Job, JobDocument, Lesson

_AT_ONCE = 10_000  # SQLite takes 32,766 values in a query
_COUNTS = col(JobDocument.withdrawn_by).is_(None)
_IS_PARTIAL = col(JobDocument.lesson)["is_partial"].as_boolean()
RETRACTED = "retracted"  # in `withdrawn_by`


def store_lessons(session: Session, job_ids: Sequence[str]) -> None:
    """Store what the jobs teach, as their documents are annotated now; what is stored already stays.

    A document whose last lesson is partial counts as reviewed for the types of that lesson and for those annotated in
    it; one whose partial lesson was withdrawn, and that has no other, for those annotated alone.
    """
    rows = _list_unstored(session, job_ids)
    of_rows = col(JobDocument.document_id).in_([row.document_id for row in rows])
    with_partial = session.exec(select(JobDocument.document_id).where(of_rows, _IS_PARTIAL).distinct()).all()
    last, reviewed = find_last_lessons(session, with_partial), list_types_by_document(session, with_partial)
    for document_id, lesson in last.items():
        if lesson.is_partial:
            reviewed[document_id].update(lesson.reviewed_types)
        else:
            del reviewed[document_id]
    _store(session, rows, reviewed)


def store_lessons_again(session: Session, job_id: str, earlier_job_id: str) -> None:
    """Store what a job teaches that repeats another: where that taught a partial lesson, one about the same types."""
    rows = _list_unstored(session, [job_id])
    earlier = find_lessons(session, {row.document_id: earlier_job_id for row in rows})
    partial = {document_id: lesson.reviewed_types for document_id, lesson in earlier.items() if lesson.is_partial}
    _store(session, [row for row in rows if row.document_id in partial], partial)
    store_lessons(session, [job_id])


def store_review(session: Session, job_id: str, looked_for: Collection[str] | None) -> None:
    """Store what a job teaches whose reviewer looked for some types, None for all, in its documents.

    With some types, a document also stays reviewed for those of its last lesson.
    """
    rows = _list_unstored(session, [job_id])
    reviewed = dict[str, Collection[str]]()
    if looked_for is not None:
        last = find_last_lessons(session, [row.document_id for row in rows])
        earlier = {document_id: lesson.reviewed_types for document_id, lesson in last.items()}
        reviewed = {row.document_id: {*looked_for, *earlier.get(row.document_id, ())} for row in rows}
    _store(session, rows, reviewed)


def find_last_lessons(session: Session, document_ids: Sequence[str]) -> dict[str, Lesson]:
    """Return the last lesson that counts on each document, learned or not."""
    recency = func.row_number().over(partition_by=JobDocument.document_id, order_by=col(Job.number).desc())
    query = select(JobDocument.document_id, JobDocument.job_id, recency.label("recency")).join(Job)
    query = query.where(col(JobDocument.document_id).in_(document_ids), col(JobDocument.lesson).is_not(None), _COUNTS)
    ranked = query.subquery()
    last = dict(session.exec(select(ranked.c.document_id, ranked.c.job_id).where(ranked.c.recency == 1)).all())
    return find_lessons(session, last)


def retract_lessons(session: Session, document_id: str, types: Collection[str]) -> set[str]:
    """Have no lesson on a document count that was reviewed for one of these types, and return what types remain.

    These are the other types for which the document was reviewed. No version is requested that never learned what is
    retracted: no run learns it again or measures by it, and the next consolidation leaves it out.
    """
    last = find_last_lessons(session, [document_id]).get(document_id)
    counting = select(JobDocument).where(JobDocument.document_id == document_id, _COUNTS)
    for row in session.exec(counting):
        if row.lesson and not set(types).isdisjoint(row.lesson.reviewed_types):
            row.withdrawn_by = RETRACTED
            session.add(row)
    session.flush()
    return set(last.reviewed_types) - set(types) if last else set()


def take_lessons(session: Session, job_ids: Sequence[str], flow_run_id: str) -> None:
    """Mark that a run reads what the jobs teach; what was not stored with the job is read now.

    A run that is retried finds what it has set aside; another run judges anew.
    """
    store_lessons(session, job_ids)
    of_other_runs = col(JobDocument.read_by).is_distinct_from(flow_run_id)
    rows = update(JobDocument).where(col(JobDocument.job_id).in_(job_ids), of_other_runs)
    session.exec(rows.values(read_by=flow_run_id, contradiction=None).execution_options(synchronize_session="fetch"))


def list_lessons(session: Session, job_ids: Sequence[str]) -> dict[str, str]:
    """Return the jobs' documents in the order of their upload, each with the newest of these jobs on it.

    What was set aside, or withdrawn while its job waited, is left out.
    """
    query = select(JobDocument.document_id, JobDocument.job_id).join(Document).join(Job)
    query = query.where(col(JobDocument.job_id).in_(job_ids), col(JobDocument.contradiction).is_(None), _COUNTS)
    return dict(session.exec(query.order_by(col(Document.created_at), col(Job.number))).all())


def list_learned_lessons(session: Session, since: int = 0, document_ids: Sequence[str] | None = None) -> dict[str, str]:
    """Return the learned documents, each with the job that taught it last, in the order of these jobs.

    What was refused, set aside or withdrawn is not learned: a document then counts as its last promoted job taught it.

    With `since`, only documents whose job has a greater number; with `document_ids`, only these.
    """
    recency = func.row_number().over(partition_by=JobDocument.document_id, order_by=col(Job.number).desc())
    query = select(JobDocument.document_id, JobDocument.job_id, Job.number, recency.label("recency")).join(Job)
    taught = col(JobDocument.lesson).is_not(None), col(JobDocument.contradiction).is_(None)
    if document_ids is not None:
        query = query.where(col(JobDocument.document_id).in_(document_ids))
    last = query.where(DECISION.in_(LEARNED), *taught, _COUNTS).subquery()
    learned = select(last.c.document_id, last.c.job_id).join(Document, col(Document.id) == last.c.document_id)
    learned = learned.where(last.c.recency == 1, last.c.number > since)
    return dict(session.exec(learned.order_by(last.c.number, col(Document.created_at))).all())


def count_learned_documents(session: Session, lessons: Mapping[str, str], types: Collection[str]) -> dict[str, int]:
    """Return in how many of the learned lessons there are annotations of each type."""
    marked = ({each.type for each in lesson.annotations} for lesson in find_lessons(session, lessons).values())
    return dict(Counter(name for of_document in marked for name in of_document & set(types)))


def list_agreed_spans(session: Session, lessons: Mapping[str, str]) -> dict[str, set[Span]]:
    """Return what at least two reviewers marked of the given learned lessons, by the document's id.

    A reviewer who sent feedback with an annotation of another one agreed to it: the audit log has the names.
    """
    reviewers: dict[tuple[str, Span], set[str | None]] = defaultdict(set)
    query = select(JobDocument).join(Job).where(col(JobDocument.document_id).in_(lessons), DECISION.in_(LEARNED))
    rows = [row for row in session.exec(query) if row.lesson]
    places = dict[str, tuple[str, Span]]()
    for row in rows:
        for each in row.lesson.annotations if row.lesson else ():
            place = row.document_id, each.span
            places[each.id] = place
            reviewers[place].add(each.reviewer)
    for entry in session.exec(select(AuditEntry).where(col(AuditEntry.document_id).in_(lessons))):
        marked, before = places.get(entry.entity_id), entry.before or {}
        if marked and all(before.get(name, value) == value for name, value in asdict(marked[1]).items()):
            reviewers[marked].add(before.get("reviewer"))
    agreed = dict[str, set[Span]]()
    for row in rows:
        if row.lesson and lessons[row.document_id] == row.job_id:
            agreed[row.document_id] = {
                span for span in row.lesson.spans if len(reviewers[row.document_id, span] - {None}) > 1
            }
    return agreed


def find_lessons(session: Session, lessons: Mapping[str, str]) -> dict[str, Lesson]:
    """Return what jobs teach, by the documents of `lessons` and in their order; deleted documents are left out."""
    found = dict[str, Lesson]()
    remaining = iter(lessons)
    while some := list(islice(remaining, _AT_ONCE)):
        jobs = col(JobDocument.job_id).in_({lessons[document_id] for document_id in some})
        query = select(JobDocument).where(col(JobDocument.document_id).in_(some), jobs)
        for row in session.exec(query):
            if row.lesson and lessons[row.document_id] == row.job_id:
                found[row.document_id] = row.lesson
    return {document_id: found[document_id] for document_id in lessons if document_id in found}


def load_lessons(session: Session, lessons: Mapping[str, str]) -> list[AnnotationData]:
    """Return what jobs teach with the documents' texts; `lessons` is as in `find_lessons`."""
    texts, found = dict[str, str](), find_lessons(session, lessons)
    remaining = iter(found)
    while some := list(islice(remaining, _AT_ONCE)):
        texts |= dict(session.exec(select(Document.id, Document.text).where(col(Document.id).in_(some))).all())
    return [
        AnnotationData(
            document_id,
            texts[document_id],
            lesson.spans,
            frozenset(lesson.reviewed_types),
        )
        for document_id, lesson in found.items()
        if document_id in texts
    ]


def _list_unstored(session: Session, job_ids: Sequence[str]) -> Sequence[JobDocument]:
    query = select(JobDocument).where(col(JobDocument.job_id).in_(job_ids), col(JobDocument.lesson).is_(None))
    return session.exec(query).all()


def _store(session: Session, rows: Sequence[JobDocument], reviewed: Mapping[str, Collection[str]]) -> None:
    """Store lessons on the documents of these rows, about the `reviewed` types of each, or all."""
    latest = get_latest_annotations(session, list({row.document_id for row in rows}))
    for row in rows:
        lesson, types = latest[row.document_id], reviewed.get(row.document_id)
        row.lesson = lesson if types is None else lesson.restrict(types)
        session.add(row)
    session.flush()
