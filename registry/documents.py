"""Queries on documents."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from registry.errors import DeletedError, NotFoundError
from registry.tables import DeletedDocument, Document


def build_missing_error(session: Session, document_id: str) -> NotFoundError | DeletedError:
    """Return the error for a document that does not exist: for a deleted one, it says what became of it."""
    deleted = session.get(DeletedDocument, document_id)
    return DeletedError(_describe(deleted)) if deleted else NotFoundError(f"There is no document {document_id}")


def find_document_by_content(session: Session, sha256: str) -> Document | None:
    """Return the document with these bytes."""
    return session.exec(select(Document).where(Document.sha256 == sha256)).first()


def find_document_by_text(session: Session, text: str, document_id: str | None = None) -> Document | None:
    """Return the document with this text, whatever file it came in: the one with this id, or the oldest."""
    named = session.get(Document, document_id) if document_id else None
    if named and named.text == text:
        return named
    same = select(Document).where(Document.character_count == len(text), Document.text == text)
    return session.exec(same.order_by(col(Document.created_at)).limit(1)).first()


def get_document(session: Session, document_id: str, lock: bool = False) -> Document:
    """Return a document; raises NotFoundError, and DeletedError for a deleted one.

    With `lock`, other transactions on PostgreSQL refer to it either before or not at all; SQLite has one writer.
    """
    document = session.get(Document, document_id, with_for_update=lock)
    if document is None:
        raise build_missing_error(session, document_id)
    return document


def is_stored(session: Session, document_id: str) -> bool:
    """Tell whether a document exists now, though it may have been loaded before it was deleted."""
    return session.exec(select(Document.id).where(Document.id == document_id)).first() is not None


def check_documents_exist(session: Session, document_ids: Sequence[str]) -> None:
    """Raise NotFoundError, or DeletedError, unless all these documents exist."""
    known = set(session.exec(select(Document.id).where(col(Document.id).in_(document_ids))))
    if unknown := [document_id for document_id in document_ids if document_id not in known]:
        raise build_missing_error(session, unknown[0])


def _describe(deleted: DeletedDocument) -> str:
    when = f"Document {deleted.id} was deleted on {deleted.deleted_at:%Y-%m-%d at %H:%M} UTC"
    if deleted.learned_from is None:
        return f"{when}. No version of the model has learned it."
    if deleted.unlearned_from is None:
        job = f"/jobs/{deleted.unlearning_job_id}"
        return f"{when}. It is not unlearned yet: job {deleted.unlearning_job_id} makes a version without it, see {job}"
    return f"{when}. It is unlearned: versions from {deleted.unlearned_from} on were made without it."
