"""Queries on annotations, and the annotations from which models learn."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlmodel import Session, and_, col, func, select, update

from registry.documents import build_missing_error
from registry.errors import ConflictError, InvalidInputError, NotFoundError, WrongValueError
from registry.jobs import DECISION
from registry.outcome import LEARNED
from registry.tables import (
    MAX_VALUE,
    Annotation,
    AnnotationBase,
    AnnotationStatus,
    Document,
    Job,
    JobDocument,
    Lesson,
    LessonAnnotation,
)


def check_annotation(document: Document, annotation: AnnotationBase) -> None:
    """Raise InvalidInputError unless the value equals the document's text at the offsets and is not too long."""
    if not 0 <= annotation.start < annotation.end <= len(document.text):
        raise InvalidInputError(
            f"start {annotation.start} and end {annotation.end} do not fit this document, which has "
            f"{len(document.text)} characters (end is exclusive)"
        )
    check_length(annotation.start, annotation.end)
    text = document.text[annotation.start : annotation.end]
    if text != annotation.value:
        place = f"{annotation.start} to {annotation.end}"
        raise WrongValueError(f"The value {annotation.value!r} is not the text at {place}", text)


def check_length(start: int, end: int) -> None:
    """Raise InvalidInputError if an annotation would be too long."""
    if end - start > MAX_VALUE:
        raise InvalidInputError(f"An annotation has {MAX_VALUE} characters at most, not {end - start}")


def add_annotation(session: Session, document: Document, new: AnnotationBase) -> Annotation:
    """Add an annotation.

    Raises InvalidInputError if it does not fit the text, ConflictError if the span has an annotation of that type,
    NotFoundError if the document was deleted meanwhile.
    """
    check_annotation(document, new)
    lock_annotations(session, document.id)
    _check_no_duplicate(session, document.id, new)
    annotation = Annotation(document_id=document.id, **new.model_dump())
    session.add(annotation)
    return annotation


def update_annotation(session: Session, document: Document, annotation: Annotation, new: AnnotationBase) -> None:
    """Overwrite an annotation; raises as `add_annotation` does."""
    check_annotation(document, new)
    lock_annotations(session, document.id)
    _check_no_duplicate(session, document.id, new, except_id=annotation.id)
    _overwrite(session, annotation, new)


def delete_annotation(session: Session, annotation: Annotation) -> None:
    """Delete an annotation; raises NotFoundError if its document was deleted meanwhile."""
    lock_annotations(session, annotation.document_id)
    session.delete(annotation)


def replace_annotations(session: Session, document: Document, new: Sequence[AnnotationBase]) -> str:
    """Replace all annotations of a document, and return the hash of the earlier ones.

    An annotation whose type and span remain keeps its id.
    """
    lock_annotations(session, document.id)
    existing = {_key(annotation): annotation for annotation in list_annotations(session, document.id)}
    earlier_sha256 = hash_annotations(list(existing.values()))
    seen = set()
    for item in new:
        if _key(item) in seen:
            raise InvalidInputError(f"{item.type} from {item.start} to {item.end} is given twice")
        seen.add(_key(item))
        check_annotation(document, item)
        if kept := existing.pop(_key(item), None):
            _overwrite(session, kept, item)
        else:
            session.add(Annotation(document_id=document.id, **item.model_dump()))
    for annotation in existing.values():
        session.delete(annotation)
    session.flush()
    return earlier_sha256


def get_annotation(session: Session, annotation_id: str) -> Annotation:
    """Return an annotation; raises NotFoundError."""
    annotation = session.get(Annotation, annotation_id)
    if annotation is None:
        raise NotFoundError(f"There is no annotation {annotation_id}")
    return annotation


def list_annotations(session: Session, document_id: str) -> Sequence[Annotation]:
    """Return a document's annotations in reading order."""
    query = select(Annotation).where(Annotation.document_id == document_id)
    return session.exec(query.order_by(col(Annotation.start), col(Annotation.end), col(Annotation.type))).all()


def hash_annotations(annotations: Sequence[AnnotationBase]) -> str:
    """Return a hash of the types, spans and statuses of a document's annotations, independent of their order."""
    marked = sorted((*_key(annotation), annotation.status) for annotation in annotations)
    return hashlib.sha256(json.dumps(marked).encode()).hexdigest()


def count_annotations(session: Session, document_id: str) -> int:
    """Return the number of a document's annotations, of any status."""
    return session.exec(select(func.count()).select_from(Annotation).where(Annotation.document_id == document_id)).one()


def count_types(session: Session) -> list[tuple[str, int, int]]:
    """Return each type of the approved annotations with their number and that of their documents, most used first."""
    count, name = func.count(), col(Annotation.type)
    query = select(Annotation.type, count, func.count(col(Annotation.document_id).distinct()))
    approved = query.where(Annotation.status == AnnotationStatus.APPROVED).group_by(name)
    return [(each, total, documents) for each, total, documents in session.exec(approved.order_by(count.desc(), name))]


def count_approved_annotations(session: Session, document_ids: Sequence[str]) -> int:
    """Return the number of approved annotations of these documents."""
    query = select(func.count()).select_from(Annotation).where(Annotation.status == AnnotationStatus.APPROVED)
    return session.exec(query.where(col(Annotation.document_id).in_(document_ids))).one()


def list_types(session: Session) -> Sequence[str]:
    """Return the types of all approved annotations."""
    query = select(Annotation.type).where(Annotation.status == AnnotationStatus.APPROVED).distinct()
    return session.exec(query).all()


def list_types_by_document(session: Session, document_ids: Sequence[str]) -> dict[str, set[str]]:
    """Return the types of the approved annotations of each of these documents."""
    types: dict[str, set[str]] = {document_id: set() for document_id in document_ids}
    query = select(Annotation.document_id, Annotation.type).where(Annotation.status == AnnotationStatus.APPROVED)
    for document_id, name in session.exec(query.where(col(Annotation.document_id).in_(document_ids)).distinct()):
        types[document_id].add(name)
    return types


def list_annotated_documents(session: Session) -> Sequence[str]:
    """Return the ids of the documents with approved annotations."""
    query = select(Annotation.document_id).where(Annotation.status == AnnotationStatus.APPROVED).distinct()
    return session.exec(query).all()


def get_latest_annotations(session: Session, document_ids: Sequence[str]) -> dict[str, Lesson]:
    """Return the approved annotations of each document by its id, in reading order.

    A type counts as reviewed in a document unless it was first used after the last feedback on that document: its
    reviewer could not have marked it. A learned type that is not used any more counts as reviewed.
    """
    annotations: dict[str, list[LessonAnnotation]] = defaultdict(list)
    approved = col(Annotation.status) == AnnotationStatus.APPROVED
    of_documents = select(Annotation).where(col(Annotation.document_id).in_(document_ids), approved)
    in_order = of_documents.order_by(col(Annotation.start), col(Annotation.end), col(Annotation.type))
    for annotation in session.exec(in_order):
        annotations[annotation.document_id].append(LessonAnnotation.model_validate(annotation, from_attributes=True))
    first_used: dict[str, datetime] = dict(
        session.exec(
            select(Annotation.type, func.min(Annotation.created_at)).where(approved).group_by(col(Annotation.type))
        ).all()
    )
    unused = _list_learned_types(session) - first_used.keys()
    last_feedback: dict[str, datetime] = dict(
        session.exec(
            select(JobDocument.document_id, func.max(Job.created_at))
            .join(Job)
            .where(col(JobDocument.document_id).in_(document_ids))
            .group_by(col(JobDocument.document_id))
        ).all()
    )
    lessons = {}
    for document_id in document_ids:
        reviewed_at = last_feedback.get(document_id)
        reviewed = {name for name, first in first_used.items() if reviewed_at is None or first <= reviewed_at}
        reviewed |= unused | {annotation.type for annotation in annotations[document_id]}
        lessons[document_id] = Lesson(annotations=annotations[document_id], reviewed_types=sorted(reviewed))
    return lessons


def _list_learned_types(session: Session) -> set[str]:
    """Return the types that learned lessons were reviewed for.

    A lesson that is not partial includes those of all before.
    """
    counts = col(JobDocument.contradiction).is_(None), col(JobDocument.withdrawn_by).is_(None), DECISION.in_(LEARNED)
    learned = and_(col(JobDocument.lesson).is_not(None), *counts)
    is_partial = col(JobDocument.lesson)["is_partial"].as_boolean()
    complete = select(Job.number).join(JobDocument).where(learned, is_partial.is_not(True))
    last_complete = complete.order_by(col(Job.number).desc()).limit(1).scalar_subquery()
    reviewed_types = col(JobDocument.lesson)["reviewed_types"].as_string()
    query = select(reviewed_types).join(Job).where(learned, col(Job.number) >= func.coalesce(last_complete, 0))
    return {name for types in session.exec(query.distinct()) for name in json.loads(types)}


def lock_annotations(session: Session, document_id: str) -> None:
    """Let only one transaction at a time change a document's annotations, by an update that changes nothing.

    Raises NotFoundError if the document was deleted meanwhile.
    """
    unchanged = update(Document).where(col(Document.id) == document_id).values(filename=Document.filename)
    if not session.exec(unchanged.execution_options(synchronize_session=False)).rowcount:
        raise build_missing_error(session, document_id)


def _overwrite(session: Session, annotation: Annotation, new: AnnotationBase) -> None:
    values = new.model_dump()
    if any(getattr(annotation, name) != value for name, value in values.items()):
        annotation.sqlmodel_update(values)
        annotation.updated_at = datetime.now(UTC)
        session.add(annotation)


def _key(annotation: AnnotationBase) -> tuple[str, int, int]:
    return annotation.type, annotation.start, annotation.end


def _check_no_duplicate(session: Session, document_id: str, new: AnnotationBase, except_id: str | None = None) -> None:
    query = select(Annotation).where(
        Annotation.document_id == document_id,
        Annotation.type == new.type,
        Annotation.start == new.start,
        Annotation.end == new.end,
        Annotation.id != except_id,
    )
    if other := session.exec(query).first():
        raise ConflictError(
            f"Annotation {other.id} already marks {new.start} to {new.end} as {new.type}: change it with PUT"
        )
