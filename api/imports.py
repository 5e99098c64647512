"""Importing files: each of their documents is stored with its annotations, or refused for itself."""

from collections.abc import Sequence
from itertools import islice

from sqlmodel import Session

from api.annotation_input import check_annotation_count, check_types
from api.documents import add_document
from api.import_schemas import ImportedDocument, ImportReport, ImportState
from api.services import Services
from intake.formats.annotated_text import AnnotatedText
from intake.formats.file_format import FileFormat, decode_file
from intake.reading import encode_text
from registry.annotations import (
    check_length,
    hash_annotations,
    list_annotations,
    lock_annotations,
    replace_annotations,
)
from registry.database import translate_database_errors
from registry.documents import find_document_by_text
from registry.errors import ContractFeedbackError, InvalidInputError, UnavailableError
from registry.reviews import list_untaught_documents
from registry.tables import AnnotationBase, Document

_MOST_RECORDS = 1_000  # of a request
_NAME = 60  # characters of a text that name a document without a file name
_KEPT = "It is annotated otherwise here, and remains so. Import with `replace` to overwrite its annotations"


def import_file(
    session: Session, services: Services, reviewer: str, file_format: FileFormat, content: bytes, replace: bool
) -> ImportReport:
    """Store the documents of a file with their annotations, each in transactions of its own.

    A document of the file is the stored one with its id, if that has the same text, else any with the same text, else a
    new one. Raises InvalidInputError if the file cannot be read, and UnavailableError; what was stored then remains.
    """
    records = list(islice(file_format.split(decode_file(content)), _MOST_RECORDS + 1))
    if len(records) > _MOST_RECORDS:
        raise InvalidInputError(f"The file has more than {_MOST_RECORDS} documents: send it in parts")
    documents = [_import_record(session, services, reviewer, file_format, record, replace) for record in records]
    stored = list(dict.fromkeys(each.document_id for each in documents if each.document_id))
    return ImportReport(documents=documents, to_teach=list_untaught_documents(session, stored))


def _import_record(
    session: Session, services: Services, reviewer: str, file_format: FileFormat, record: str, replace: bool
) -> ImportedDocument:
    try:
        with translate_database_errors():
            read = file_format.read(record)
            annotations = _resolve(read, services, reviewer)
            document, state = _store(session, services, read, annotations, replace)
    except UnavailableError:
        raise
    except ContractFeedbackError as error:
        session.rollback()
        return ImportedDocument(state=ImportState.REFUSED, reason=str(error))
    return ImportedDocument(
        state=state,
        reason=_KEPT if state == ImportState.KEPT else None,
        document_id=document.id,
        filename=document.filename,
        annotations=len(annotations),
        ignored=dict(read.ignored),
    )


def _resolve(read: AnnotatedText, services: Services, reviewer: str) -> list[AnnotationBase]:
    """Return the annotations with their values; one that is given twice counts once."""
    marks = {(mark.type, mark.start, mark.end): mark for mark in read.marks}.values()
    check_annotation_count(len(marks), services)
    for mark in marks:
        if not mark.start < mark.end <= len(read.text):
            raise InvalidInputError(
                f"{mark.type} from {mark.start} to {mark.end} does not fit the text, which has {len(read.text)} "
                "characters (end is exclusive)"
            )
        check_length(mark.start, mark.end)
    return [
        AnnotationBase(
            type=mark.type,
            value=read.text[mark.start : mark.end],
            start=mark.start,
            end=mark.end,
            reviewer=mark.reviewer or reviewer,
            notes=mark.notes,
            status=mark.status,
        )
        for mark in marks
    ]


def _store(
    session: Session, services: Services, read: AnnotatedText, annotations: Sequence[AnnotationBase], replace: bool
) -> tuple[Document, ImportState]:
    existing = find_document_by_text(session, read.text, read.document_id)
    imported_sha256 = hash_annotations(annotations)
    if existing and hash_annotations(list_annotations(session, existing.id)) == imported_sha256:
        return existing, ImportState.UNCHANGED
    check_types(session, annotations, services)
    document = existing or add_document(session, services, encode_text(read.text), _name(read))
    lock_annotations(session, document.id)
    session.expire_all()  # others may have written before the lock
    stored = list_annotations(session, document.id)
    if stored and not replace and hash_annotations(stored) != imported_sha256:
        session.rollback()
        return document, ImportState.KEPT
    replace_annotations(session, document, annotations)
    session.commit()
    return document, ImportState.REPLACED if stored else ImportState.ADDED


def _name(read: AnnotatedText) -> str:
    """Return the file name or, if there is none, the first words of the text."""
    return (read.filename or " ".join(read.text[: 2 * _NAME].split())[:_NAME])[:255]
