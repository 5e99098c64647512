"""What several routes do with documents: add one, and extract its entities."""

import hashlib
import time

from sqlmodel import Session

from api.services import Services
from embeddinggemma_feasibility.annotation_data import Entity
from intake.reading import read_document
from registry.database import translate_database_errors
from registry.documents import build_missing_error, find_document_by_content, is_stored
from registry.errors import ConflictError, UnavailableError
from registry.served_model import LoadedModel
from registry.tables import Document


def add_document(session: Session, services: Services, content: bytes, filename: str) -> Document:
    """Commit a contract, have its text encoded, and return it; the same bytes again return the existing document."""
    sha256 = hashlib.sha256(content).hexdigest()
    if existing := find_document_by_content(session, sha256):
        services.encoding.add(existing.text)
        return existing
    read = read_document(content, services.settings)
    document = Document(
        filename=filename,
        media_type=read.media_type,
        sha256=sha256,
        size_bytes=len(content),
        page_count=read.page_count,
        character_count=len(read.text),
        text=read.text,
    )
    document_id = document.id
    services.store.save(document_id, content, read.boxes, read.pages)
    session.add(document)
    try:
        with translate_database_errors():
            session.commit()
    except (ConflictError, UnavailableError):
        session.rollback()
        existing = find_document_by_content(session, sha256)  # the commit may have succeeded without an answer
        if existing is None or existing.id != document_id:
            services.store.delete(document_id)
        if existing is None:
            raise
        return existing
    services.encoding.add(read.text)
    services.uncertainty.add_upload(document.id)
    return document


def extract(session: Session, services: Services, document: Document, model: LoadedModel) -> list[Entity]:
    """Return the entities that a model finds in a document.

    Raises UnavailableError for a long document that is still being read, DeletedError if it is deleted meanwhile.
    """
    started = time.perf_counter()
    is_new = services.encoding.encode(document.text, model.tagger)
    entities, uncertain_values = model.tagger.read(document.text, services.cache)
    seconds = services.metrics.extraction_seconds.labels("new" if is_new else "known")
    seconds.observe(time.perf_counter() - started)
    if not is_stored(session, document.id):
        services.encoding.forget(document.text)
        raise build_missing_error(session, document.id)
    services.uncertainty.add_count(document.id, model.version, uncertain_values)
    return entities
