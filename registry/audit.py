"""The audit log: who changed what, when, and the old values, written in the transaction of the change."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_jsonable_python
from sqlalchemy import event, inspect
from sqlmodel import Session, SQLModel, col, func, select, update

from registry.tables import Annotation, ApiKey, AuditAction, AuditEntry, Document, Job, JobDocument, Webhook

_PRINCIPAL = "principal"
_AUDITED = (Annotation, ApiKey, Document, Job, Webhook)
_NEVER_RECORDED = {"text", "filename", "sha256", "secret_hash", "secret"}
_OF_ANNOTATIONS = col(AuditEntry.entity) == Annotation.__name__.lower()


def set_principal(session: Session, principal: str) -> None:
    """Record every further change in this session as made by `principal`."""
    session.info[_PRINCIPAL] = principal


def list_entries(
    session: Session, offset: int, limit: int, document_id: str | None = None
) -> tuple[Sequence[AuditEntry], int]:
    """Return one page of the log, or of a document's annotation changes, newest first, and the number of all."""
    query, count = select(AuditEntry), select(func.count()).select_from(AuditEntry)
    if document_id:
        of_document = col(AuditEntry.document_id) == document_id, _OF_ANNOTATIONS
        query, count = query.where(*of_document), count.where(*of_document)
    page = session.exec(query.order_by(col(AuditEntry.id).desc()).offset(offset).limit(limit)).all()
    return page, session.exec(count).one()


def find_annotated_document(session: Session, annotation_id: str) -> str | None:
    """Return the document of an annotation, though it may be deleted; None for an unknown annotation."""
    query = select(AuditEntry.document_id).where(AuditEntry.entity_id == annotation_id, _OF_ANNOTATIONS)
    return session.exec(query.limit(1)).first()


def record_promotion(session: Session, version: str, champion: str | None, reason: str | None) -> None:
    """Record that the session's principal makes a version of the model the champion, instead of `champion`."""
    session.add(
        AuditEntry(
            principal=session.info[_PRINCIPAL],
            action=AuditAction.PROMOTED,
            entity="model",
            entity_id=version,
            before={"champion": champion},
            reason=reason,
        )
    )


def find_promotion(session: Session, version: str) -> datetime | None:
    """Return when a person last promoted a version over the API, None if nobody did."""
    query = select(AuditEntry.at).where(AuditEntry.entity_id == version, AuditEntry.action == AuditAction.PROMOTED)
    return session.exec(query.order_by(col(AuditEntry.id).desc()).limit(1)).first()


def delete_old_values(session: Session, document_id: str) -> None:
    """Delete what the log and the jobs hold of a document's contents: old values of its annotations, and notes."""
    session.exec(update(AuditEntry).where(col(AuditEntry.document_id) == document_id).values(before=None))
    of_document = select(JobDocument.job_id).where(JobDocument.document_id == document_id)
    session.exec(update(Job).where(col(Job.id).in_(of_document)).values(note=None))


@event.listens_for(Session, "before_flush")
def _record(session: Session, *_: Any) -> None:
    if principal := session.info.get(_PRINCIPAL):
        session.add_all(list(_list_changes(session, principal)))


def _list_changes(session: Session, principal: str) -> Iterator[AuditEntry]:
    for action, rows in (
        (AuditAction.CREATED, session.new),
        (AuditAction.CHANGED, session.dirty),
        (AuditAction.DELETED, session.deleted),
    ):
        for row in rows:
            if isinstance(row, _AUDITED) and (action != AuditAction.CHANGED or session.is_modified(row)):
                yield AuditEntry(
                    principal=principal,
                    action=action,
                    entity=type(row).__name__.lower(),
                    entity_id=row.id,
                    document_id=row.document_id if isinstance(row, Annotation) else None,
                    before=_describe_before(row, action),
                )


def _describe_before(row: SQLModel, action: AuditAction) -> dict[str, Any] | None:
    """Return the values that are overwritten, or all values of a deleted row."""
    if action == AuditAction.CREATED:
        return None
    names = type(row).model_fields.keys() - _NEVER_RECORDED
    if action == AuditAction.DELETED:
        values = {name: getattr(row, name) for name in names}
    else:
        histories = {name: inspect(row).attrs[name].history for name in names}
        values = {name: history.deleted[0] for name, history in histories.items() if history.deleted}
    return dict(to_jsonable_python(values))
