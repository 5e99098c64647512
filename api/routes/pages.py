"""The pages of a PDF: their sizes, images of them, and where their words are."""

from collections.abc import AsyncIterator
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session, select

from api.authentication import GuardedRoute
from api.dependencies import ReaderDep, ServicesDep, SessionDep, hold_reading_slot
from api.errors import document_errors
from api.schemas import DocumentPage, DocumentPages, PageWords
from api.services import Services
from intake.location import list_words
from registry.database import translate_database_errors
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


async def _get_pages(document_id: Text, request: Request, services: ServicesDep) -> PageArray:
    """Return the pages of a document; those of an earlier release are read and stored now, in turn with the uploads."""
    async with services.request_slots:
        pages = await run_in_threadpool(_find_pages, document_id, services)
    if pages is not None:
        return pages
    async with hold_reading_slot(request, services):
        return await run_in_threadpool(_read_pages, document_id, services)


def _find_pages(document_id: str, services: Services) -> PageArray | None:
    """Return the stored pages; None if there are none of a PDF."""
    with translate_database_errors(), Session(services.engine) as session:
        media_type = session.exec(select(Document.media_type).where(Document.id == document_id)).first()
    return services.store.find_pages(document_id) if media_type == "application/pdf" else np.empty((0, 4))


def _read_pages(document_id: str, services: Services) -> PageArray:
    pages = services.images.read_pages(document_id)
    with translate_database_errors(), Session(services.engine) as session:
        if not is_stored(session, document_id):  # it was deleted meanwhile
            services.store.delete(document_id)
    return pages


PagesDep = Annotated[PageArray, Depends(_get_pages)]


@router.get("", responses=document_errors(404, 410))
def read_pages(document_id: Text, pages: PagesDep, session: SessionDep, _: ReaderDep) -> DocumentPages:
    """List a PDF's pages, each with its size and the range of its text; plain text has none."""
    get_document(session, document_id)
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
    document_id: Text, number: NumberDep, pages: PagesDep, session: SessionDep, services: ServicesDep, _: ReaderDep
) -> PageWords:
    """List the words on a page of a PDF with their boxes; what has no box is left out."""
    document = _get_pdf(session, document_id, number)
    *_size, start, end = pages[number - 1].tolist()
    return PageWords(words=list_words(document.text, services.store.load_boxes(document.id), int(start), int(end)))


def _get_pdf(session: Session, document_id: str, number: int) -> Document:
    """Return a document that has this page."""
    document = get_document(session, document_id)
    if document.media_type != "application/pdf":
        raise NotFoundError(f"Document {document_id} is plain text, which has no pages")
    if number > document.page_count:
        raise NotFoundError(f"The last page of document {document_id} is {document.page_count}: there is no {number}")
    return document
