"""Held-out documents: about one in ten, on which feedback measures models while no model learns from it."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from registry.tables import Document, JobDocument

ENOUGH_HELD_OUT = 5  # from here on, the held-out documents alone decide which of two models is better
_ONE_IN = 10


def is_held_out(sha256: str) -> bool:
    """Tell whether a document is held out: the hash of its bytes decides, once and for all."""
    return int(sha256, 16) % _ONE_IN == 0


def list_held_out_documents(session: Session, limit: int) -> Sequence[str]:
    """Return the newest held-out documents that received feedback."""
    query = select(Document.id).where(
        col(Document.held_out).is_(True), col(Document.id).in_(select(JobDocument.document_id))
    )
    return session.exec(query.order_by(col(Document.created_at).desc()).limit(limit)).all()
