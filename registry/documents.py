"""Queries on documents."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import defer
from sqlmodel import Session, col, func, select

from registry.errors import NotFoundError
from registry.tables import Document


def build_missing_error(document_id: str) -> NotFoundError:
    """Return the error for a document that does not exist."""
    return NotFoundError(f"There is no document {document_id}")


def find_document_by_content(session: Session, sha256: str) -> Document | None:
    """Return the document with these bytes."""
    return session.exec(select(Document).where(Document.sha256 == sha256)).first()


def get_document(session: Session, document_id: str, lock: bool = False) -> Document:
    """Return a document; raises NotFoundError.

    With `lock`, other transactions on PostgreSQL refer to it either before or not at all; SQLite has one writer.
    """
    document = session.get(Document, document_id, with_for_update=lock)
    if document is None:
        raise build_missing_error(document_id)
    return document


def check_documents_exist(session: Session, document_ids: Sequence[str]) -> None:
    """Raise NotFoundError unless all these documents exist."""
    known = set(session.exec(select(Document.id).where(col(Document.id).in_(document_ids))))
    if unknown := [document_id for document_id in document_ids if document_id not in known]:
        raise build_missing_error(unknown[0])


def list_documents(
    session: Session, offset: int, limit: int, condition: ColumnElement[bool] | None = None
) -> tuple[Sequence[Document], int]:
    """Return one page of the documents that meet a condition, newest first, and the number of all that do."""
    condition = true() if condition is None else condition
    query = select(Document).where(condition).options(defer(Document.text))  # type: ignore[arg-type]
    page = session.exec(query.order_by(col(Document.created_at).desc()).offset(offset).limit(limit)).all()
    return page, session.exec(select(func.count()).select_from(Document).where(condition)).one()
