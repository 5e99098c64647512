"""Queries on corrections: the values on which a model and a reviewer once disagreed."""

from collections.abc import Iterable, Sequence

from sqlmodel import Session, col, select

from embeddinggemma_feasibility.evaluation import LabelledValue
from registry.tables import Correction, Document


def add_corrections(session: Session, corrections: Iterable[LabelledValue]) -> None:
    """Store corrections that are not stored yet, except those of documents that were deleted meanwhile."""
    corrections = list(corrections)
    ids = {correction.document_id for correction in corrections}
    existing = set(session.exec(select(Document.id).where(col(Document.id).in_(ids))))
    for correction in corrections:
        if correction.document_id in existing:
            session.merge(Correction(**correction._asdict()))


def list_corrections(session: Session, document_ids: Sequence[str]) -> set[LabelledValue]:
    """Return all corrections of the documents."""
    query = select(Correction).where(col(Correction.document_id).in_(document_ids))
    return {LabelledValue(row.document_id, row.type, row.value) for row in session.exec(query)}


def list_corrected_documents(session: Session, excluded: Sequence[str], limit: int) -> Sequence[str]:
    """Return the newest documents with corrections from which models learn."""
    query = select(Document.id).where(
        col(Document.held_out).is_(False),
        col(Document.id).not_in(excluded),
        col(Document.id).in_(select(Correction.document_id)),
    )
    return session.exec(query.order_by(col(Document.created_at).desc()).limit(limit)).all()
