"""The audit log: all writes, and the history of a document's annotations."""

from fastapi import APIRouter
from sqlmodel import Session

from api.authentication import GuardedRoute
from api.dependencies import AdministratorDep, LimitDep, OffsetDep, ReaderDep, SessionDep
from api.errors import document_errors
from api.schemas import AuditEntryPublic, Page
from registry.audit import list_entries
from registry.documents import get_document
from registry.text_types import Text

router = APIRouter(tags=["audit"], route_class=GuardedRoute)


@router.get("/audit")
def read_audit_log(
    session: SessionDep, _: AdministratorDep, offset: OffsetDep = 0, limit: LimitDep = 50
) -> Page[AuditEntryPublic]:
    """List every write over the API, newest first."""
    return _respond_page(session, offset, limit)


@router.get("/documents/{document_id}/history", responses=document_errors(404, 410))
def read_history(
    document_id: Text, session: SessionDep, _: ReaderDep, offset: OffsetDep = 0, limit: LimitDep = 50
) -> Page[AuditEntryPublic]:
    """List every change to a document's annotations, newest first: who, when, the old values."""
    get_document(session, document_id)
    return _respond_page(session, offset, limit, document_id)


def _respond_page(session: Session, offset: int, limit: int, document_id: str | None = None) -> Page[AuditEntryPublic]:
    entries, total = list_entries(session, offset, limit, document_id)
    items = [AuditEntryPublic.model_validate(entry) for entry in entries]
    return Page(items=items, total=total, offset=offset, limit=limit)
