"""The pages of a PDF: their sizes, images of them, and where their words are."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlmodel import Session

from api.authentication import GuardedRoute
from api.dependencies import ReaderDep, ServicesDep, SessionDep, hold_reading_slot
from api.errors import document_errors
from api.schemas import DocumentPage, DocumentPages, PageWords
from api.services import Services
from intake.location import list_words
from intake.reading import read_pdf
from registry.document_store import PageArray
from registry.documents import build_missing_error, get_document, is_stored
from registry.errors import NotFoundError
from registry.tables import Document
from registry.text_types import Text

router = APIRouter(prefix="/documents/{document_id}/pages", tags=["pages"], route_class=GuardedRoute)
_IMAGE = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}
_KEPT_BY_BROWSERS = {"Cache-Control": "private, max-age=3600, immutable", "Vary": "Authorization"}
NumberDep = Annotated[int, Path(ge=1, le=1_000_000, description="Number of the page, the first is 1")]
WidthDep = Annotated[int, Query(ge=200, le=2400, description="In pixels; a page that is very long becomes narrower")]


@router.get("", responses=document_errors(404, 410))
def read_pages(document_id: Text, session: SessionDep, services: ServicesDep, _: ReaderDep) -> DocumentPages:
    """List a PDF's pages, each with its size and the range of its text; plain text has none."""
    document = get_document(session, document_id)
    if document.media_type != "application/pdf":
        return DocumentPages(pages=[])
    pages = _get_pages(session, services, document).tolist()
    return DocumentPages(
        pages=[DocumentPage(width=width, height=height, start=start, end=end) for width, height, start, end in pages]
    )


async def _take_drawing_slot(
    document_id: Text, number: NumberDep, request: Request, services: ServicesDep, width: WidthDep = 1200
) -> AsyncIterator[None]:
    """Wait as an upload does, unless the page is drawn already."""
    if (document_id, number, width) in services.images:
        yield
        return
    async with hold_reading_slot(request, services):
        yield


@router.get(
    "/{number}/image",
    response_class=Response,
    responses={200: {"content": _IMAGE}, **document_errors(404, 410)},
)
def draw_page(
    document_id: Text,
    number: NumberDep,
    _drawing: Annotated[None, Depends(_take_drawing_slot, scope="function")],
    session: SessionDep,
    services: ServicesDep,
    _: ReaderDep,
    width: WidthDep = 1200,
) -> Response:
    """Draw a page of a PDF."""
    document = _get_pdf(session, document_id, number)
    image = services.images.get(document.id, number, width, document.page_count)
    if not is_stored(session, document_id):  # it was deleted meanwhile
        services.images.forget(document_id)
        raise build_missing_error(session, document_id)
    return Response(image, media_type="image/jpeg", headers=_KEPT_BY_BROWSERS)


@router.get("/{number}/words", responses=document_errors(404, 410))
def read_words(
    document_id: Text, number: NumberDep, session: SessionDep, services: ServicesDep, _: ReaderDep
) -> PageWords:
    """List the words on a page of a PDF with their boxes; what has no box is left out."""
    document = _get_pdf(session, document_id, number)
    *_size, start, end = _get_pages(session, services, document)[number - 1].tolist()
    return PageWords(words=list_words(document.text, services.store.load_boxes(document.id), int(start), int(end)))


def _get_pdf(session: Session, document_id: str, number: int) -> Document:
    """Return a document that has this page."""
    document = get_document(session, document_id)
    if document.media_type != "application/pdf":
        raise NotFoundError(f"Document {document_id} is plain text, which has no pages")
    if number > document.page_count:
        raise NotFoundError(f"The last page of document {document_id} is {document.page_count}: there is no {number}")
    return document


def _get_pages(session: Session, services: Services, document: Document) -> PageArray:
    """Return the pages of a PDF; of one that was uploaded to an earlier release, they are read and stored now."""
    pages = services.store.find_pages(document.id)
    if pages is None:
        pages = read_pdf(services.store.load_content(document.id), services.settings).pages
        services.store.save_pages(document.id, pages)
        if not is_stored(session, document.id):
            services.store.delete(document.id)
            raise build_missing_error(session, document.id)
    return pages
