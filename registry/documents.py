"""Queries on documents."""

from collections.abc import Sequence

from sqlalchemy.orm import defer
from sqlmodel import Session, col, func, select

from registry.errors import NotFoundError
from registry.tables import Document


def find_document_by_content(session: Session, sha256: str) -> Document | None:
    """Return the document with these bytes."""
    return session.exec(select(Document).where(Document.sha256 == sha256)).first()


def get_document(session: Session, document_id: str) -> Document:
    """Return a document; raises NotFoundError."""
    document = session.get(Document, document_id)
    if document is None:
        raise NotFoundError(f"There is no document {document_id}")
    return document


def check_documents_exist(session: Session, document_ids: Sequence[str]) -> None:
    """Raise NotFoundError unless all these documents exist."""
    known = set(session.exec(select(Document.id).where(col(Document.id).in_(document_ids))))
    if unknown := [document_id for document_id in document_ids if document_id not in known]:
        raise NotFoundError(f"There is no document {unknown[0]}")


def list_documents(session: Session, offset: int, limit: int) -> tuple[Sequence[Document], int]:
    """Return one page of documents, newest first, and the number of all."""
    query = select(Document).options(defer(Document.text))  # type: ignore[arg-type]
    page = session.exec(query.order_by(col(Document.created_at).desc()).offset(offset).limit(limit)).all()
    return page, session.exec(select(func.count()).select_from(Document)).one()
