"""The list of documents: its orders and filters, and what it shows of each document beside the document itself.

Events of the session keep its rows up to date, so what changes documents, annotations and lessons need not.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypedDict

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, event, inspect
from sqlalchemy.orm import Mapper, defer
from sqlmodel import Session, and_, bindparam, col, func, select, update

from embeddinggemma_feasibility.annotation_data import Span
from registry.jobs import Review, is_in_review, select_review
from registry.tables import Annotation, AnnotationStatus, Document, JobDocument, ListedDocument

_listed = col(ListedDocument.document_id)


_APPROVED = col(Annotation.status) == AnnotationStatus.APPROVED


class Order(StrEnum):
    """How documents are sorted."""

    NEWEST = "newest"
    NAME = "name"
    UNCERTAIN = "uncertain"


_NEWEST = col(ListedDocument.created_at).desc()
_ORDERS: dict[Order, tuple[Any, ...]] = {
    Order.NEWEST: (_NEWEST, _listed),
    Order.NAME: (col(ListedDocument.name), _listed),
    Order.UNCERTAIN: (
        col(ListedDocument.taught_sha256).is_not(None),
        col(ListedDocument.uncertain_values).desc().nulls_last(),
        _NEWEST,
        _listed,
    ),
}


def list_documents(
    session: Session, offset: int, limit: int, condition: ColumnElement[bool] | None = None, order: Order = Order.NEWEST
) -> tuple[list[Document], int]:
    """Return one page of the documents that meet a condition, without their texts, and the number of all that do.

    The condition is one on `ListedDocument`.
    """
    query, count = select(_listed), select(func.count()).select_from(ListedDocument)
    if condition is not None:
        query, count = query.where(condition), count.where(condition)
    document_ids = session.exec(query.order_by(*_ORDERS[order]).offset(offset).limit(limit)).all()
    rows = select(Document).where(col(Document.id).in_(document_ids)).options(defer(Document.text))  # type: ignore[arg-type]
    found = {document.id: document for document in session.exec(rows)}
    return [found[document_id] for document_id in document_ids if document_id in found], session.exec(count).one()


def is_named_like(part: str) -> ColumnElement[bool]:
    """Return the condition that a file name contains a text, in upper or lower case."""
    return col(ListedDocument.name).contains(part.casefold(), autoescape=True)


def has_type(name: str) -> ColumnElement[bool]:
    """Return the condition that a document has approved annotations of a type."""
    return _listed.in_(select(Annotation.document_id).where(col(Annotation.type) == name, _APPROVED))


class Listed(TypedDict):
    """What the list shows of a document beside the document itself."""

    review: Review
    uncertain_values: float | None


def find_listed(session: Session, document_ids: Sequence[str]) -> dict[str, Listed]:
    """Return what the list shows of each of these documents."""
    query = select(_listed, select_review(document_ids), col(ListedDocument.uncertain_values))
    rows = session.exec(query.where(_listed.in_(document_ids)))
    return {each: Listed(review=Review(review), uncertain_values=uncertain) for each, review, uncertain in rows}


def store_uncertain_values(session: Session, version: str, uncertain_values: Mapping[str, float]) -> None:
    """Store how many values a version is uncertain of, by the ids of documents, which may be deleted."""
    rows = {each: {"uncertain_values": count, "read_by_version": version} for each, count in uncertain_values.items()}
    _store(session, rows)


def list_documents_to_read(session: Session, version: str, limit: int) -> Sequence[str]:
    """Return new documents that this version has not read yet: the most uncertain ones, then as many unknown ones."""
    not_read = col(ListedDocument.read_by_version).is_distinct_from(version)
    query = select(_listed).where(not_read, is_in_review(Review.NEW))
    is_known = col(ListedDocument.uncertain_values).is_not(None)
    known = query.where(is_known).order_by(*_ORDERS[Order.UNCERTAIN]).limit(limit)
    unknown = query.where(~is_known).order_by(func.random()).limit(limit)
    return [*session.exec(known), *session.exec(unknown)]


def _hash_spans(spans: Iterable[Span]) -> str | None:
    marked = sorted((span.type, span.start, span.end) for span in spans)
    return hashlib.sha256(json.dumps(marked).encode()).hexdigest() if marked else None


@event.listens_for(Document, "after_insert")
def _list_document(_: Mapper[Document], connection: Connection, document: Document) -> None:
    values = {"document_id": document.id, "name": document.filename.casefold(), "created_at": document.created_at}
    connection.execute(sqlalchemy.insert(ListedDocument).values(values))


@event.listens_for(Session, "after_flush")
def _update_hashes(session: Session, _: Any) -> None:
    changed = [*session.new, *session.dirty, *session.deleted]
    annotated = {row.document_id for row in changed if isinstance(row, Annotation)}
    _store(session, {each: {"annotated_sha256": _hash_spans(_list_approved(session, each))} for each in annotated})
    rows = (row for row in changed if isinstance(row, JobDocument) and inspect(row).attrs.lesson.history.has_changes())
    _store(session, {row.document_id: {"taught_sha256": _hash_spans(row.lesson.spans)} for row in rows if row.lesson})


def _list_approved(session: Session, document_id: str) -> list[Span]:
    marked = sqlalchemy.select(col(Annotation.start), col(Annotation.end), col(Annotation.type))
    approved = and_(col(Annotation.document_id) == document_id, _APPROVED)
    return [Span(start, end, name) for start, end, name in session.connection().execute(marked.where(approved))]


def _store(session: Session, values: Mapping[str, dict[str, Any]]) -> None:
    """Store the same columns of listed documents, in the order of their ids, so that no two transactions deadlock."""
    if values:
        columns = next(iter(values.values()))
        changed = update(ListedDocument).where(_listed == bindparam("id")).values({x: bindparam(x) for x in columns})
        rows = [{"id": document_id, **values[document_id]} for document_id in sorted(values)]
        session.connection().execute(changed, rows)
