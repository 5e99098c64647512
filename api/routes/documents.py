"""Documents: upload, list, read, delete."""

from typing import Annotated

from fastapi import APIRouter, File, Query, Response, UploadFile, status
from fastapi.responses import PlainTextResponse
from sqlmodel import Session, and_, true

from api.authentication import GuardedRoute
from api.dependencies import AnnotatorDep, LimitDep, OffsetDep, ReaderDep, ReadingDep, ServicesDep, SessionDep
from api.document_responses import build_document_response, build_document_responses
from api.documents import add_document
from api.errors import document_errors
from api.schemas import DocumentPublic, Page
from api.services import Services
from feedback import unlearning
from registry.documents import get_document
from registry.errors import TooLargeError
from registry.jobs import DocumentState, Review, is_in_review, select_documents_in
from registry.keys import Scope
from registry.listed_documents import Order, has_type, is_named_like, list_documents
from registry.tables import Document
from registry.text_types import Text

router = APIRouter(prefix="/documents", tags=["documents"], route_class=GuardedRoute)
_PLAIN_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_ORIGINAL_FILE = {"application/pdf": {"schema": {"type": "string", "format": "binary"}}, **_PLAIN_TEXT}


@router.post("", status_code=status.HTTP_201_CREATED, responses=document_errors(400, 404, 409, 410, 413, 415))
def upload_document(
    file: Annotated[UploadFile, File(description="A PDF with a text layer, or plain text in UTF-8")],
    _reading: ReadingDep,
    session: SessionDep,
    services: ServicesDep,
    _: AnnotatorDep,
) -> DocumentPublic:
    """Upload a contract. The same bytes again return the existing document."""
    return build_document_response(session, _store_upload(file, session, services))


def _store_upload(file: UploadFile, session: Session, services: Services) -> Document:
    limit = services.settings.max_upload_bytes
    content = file.file.read(limit + 1)
    if len(content) > limit:
        raise TooLargeError(f"The file is larger than {limit} bytes")
    return add_document(session, services, content, _clean_filename(file.filename))


@router.get("")
def read_documents(
    session: SessionDep,
    _: ReaderDep,
    offset: OffsetDep = 0,
    limit: LimitDep = 50,
    order: Annotated[
        Order, Query(description="`uncertain`: what was not taught, with the highest `uncertain_values` first")
    ] = Order.NEWEST,
    search: Annotated[Text | None, Query(max_length=200, description="Part of the file name, in any case")] = None,
    entity_type: Annotated[
        Text | None, Query(alias="type", max_length=100, description="Only documents with approved annotations of it")
    ] = None,
    review: Annotated[Review | None, Query(description="Only documents whose review is this far")] = None,
    state: Annotated[DocumentState | None, Query(description="Only documents none of whose jobs waits")] = None,
) -> Page[DocumentPublic]:
    """List the documents, newest first; `state=set_aside` lists those whose last feedback no model learns."""
    conditions = [
        is_named_like(search) if search else true(),
        has_type(entity_type) if entity_type else true(),
        is_in_review(review) if review else true(),
        select_documents_in(state) if state else true(),
    ]
    found, total = list_documents(session, offset, limit, and_(*conditions), order)
    return Page(items=build_document_responses(session, found), total=total, offset=offset, limit=limit)


@router.get("/{document_id}", responses=document_errors(404, 410))
def read_one_document(document_id: Text, session: SessionDep, _: ReaderDep) -> DocumentPublic:
    """Read the description of a document."""
    return build_document_response(session, get_document(session, document_id))


@router.get(
    "/{document_id}/content",
    response_class=Response,
    responses={200: {"content": _ORIGINAL_FILE}, **document_errors(404, 410)},
)
def read_content(document_id: Text, session: SessionDep, services: ServicesDep, _: ReaderDep) -> Response:
    """Download the original file."""
    document = get_document(session, document_id)
    return Response(services.store.load_content(document.id), media_type=document.media_type)


@router.get(
    "/{document_id}/text",
    response_class=Response,
    responses={200: {"content": _PLAIN_TEXT}, **document_errors(404, 410)},
)
def read_text(document_id: Text, session: SessionDep, _: ReaderDep) -> PlainTextResponse:
    """Read the document's text; all offsets count its characters."""
    return PlainTextResponse(get_document(session, document_id).text)


@router.delete("/{document_id}", status_code=status.HTTP_204_NO_CONTENT, responses=document_errors(404, 409, 410))
def delete_document(document_id: Text, session: SessionDep, services: ServicesDep, caller: AnnotatorDep) -> None:
    """Delete a document with its annotations.

    If a model may have learned it, the key needs the scope `admin`, too, since nobody can take this back: a version
    without it is made in the background, and earlier ones that may have learned it cannot be promoted any more.
    `GET /documents/{id}` answers 410 and says when that is done.
    """
    document = get_document(session, document_id, lock=True)  # what others still write of it would outlive it
    text = document.text
    deleted = unlearning.delete_document(session, document, caller.name)
    if deleted.learned_from:
        caller.require(Scope.ADMIN)
    session.commit()
    services.launcher.wake(*filter(None, [deleted.unlearning_job_id]))
    services.encoding.forget(text)
    services.images.forget(document_id)
    services.store.delete(document_id)  # last: if the commit fails, as on a full disk, nothing is lost


def _clean_filename(filename: str | None) -> str:
    """Return a name that every database can store."""
    return (filename or "").encode(errors="replace").decode().replace("\0", "")[:255] or "unnamed"
