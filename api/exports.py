"""Exporting reviewed documents, one after another, so that many do not fill the memory."""

from collections.abc import AsyncIterator, Collection, Sequence

from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session

from api.services import Services
from intake.formats.annotated_text import AnnotatedText, Mark
from intake.formats.file_format import FileFormat
from registry.annotations import list_annotations
from registry.database import translate_database_errors
from registry.tables import Annotation, AnnotationStatus, Document


async def stream_file(
    services: Services, file_format: FileFormat, document_ids: Sequence[str], statuses: Collection[AnnotationStatus]
) -> AsyncIterator[str]:
    """Yield a file of these documents and their annotations of these statuses; one that was deleted is left out."""
    before = file_format.opening
    for document_id in document_ids:
        async with services.request_slots:
            record = await run_in_threadpool(_write_document, services, file_format, document_id, statuses)
        if record is not None:
            yield before + record
            before = file_format.separator
    yield (before if before == file_format.opening else "") + file_format.closing


def _write_document(
    services: Services, file_format: FileFormat, document_id: str, statuses: Collection[AnnotationStatus]
) -> str | None:
    with translate_database_errors(), Session(services.engine) as session:
        document = session.get(Document, document_id)
        if document is None:
            return None
        found = list_annotations(session, document_id)
        marks = tuple(_read_mark(each) for each in found if each.status in statuses)
        return file_format.write(AnnotatedText(document.text, marks, document.id, document.filename))


def _read_mark(annotation: Annotation) -> Mark:
    """Return a stored annotation as it is: earlier releases had fewer limits."""
    return Mark.model_construct(
        type=annotation.type,
        start=annotation.start,
        end=annotation.end,
        reviewer=annotation.reviewer,
        notes=annotation.notes,
        status=AnnotationStatus(annotation.status),
    )
