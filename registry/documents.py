"""Queries on documents."""

from collections.abc import Sequence

from sqlalchemy.orm import defer
from sqlmodel import Session, col, func, select

from registry.errors import NotFoundError
from registry.tables import Document

_HELD_OUT_ONE_IN = 10


def is_held_out(sha256: str) -> bool:
    """Tell by the hash of its bytes whether a document, about one in ten, is kept for measuring: for good."""
    return int(sha256, 16) % _HELD_OUT_ONE_IN == 0


def find_document_by_content(session: Session, sha256: str) -> Document | None:
    """Return the document with these bytes."""
    return session.exec(select(Document).where(Document.sha256 == sha256)).first()


def get_document(session: Session, document_id: str) -> Document:
    """Return a document; raises NotFoundError."""
    document = session.get(Document, document_id)
    if document is None:
        raise NotFoundError(f"There is no document {document_id}")
    return document


def list_documents(session: Session, offset: int, limit: int) -> tuple[Sequence[Document], int]:
    """Return a page of documents, newest first, and how many there are in all."""
    query = select(Document).options(defer(Document.text))  # type: ignore[arg-type]
    page = session.exec(query.order_by(col(Document.created_at).desc()).offset(offset).limit(limit)).all()
    return page, session.exec(select(func.count()).select_from(Document)).one()
