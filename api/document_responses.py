"""Documents as clients see them."""

from collections.abc import Sequence

from sqlmodel import Session

from api.schemas import DocumentPublic
from registry.documents import build_missing_error
from registry.listed_documents import find_listed
from registry.tables import Document


def build_document_responses(session: Session, documents: Sequence[Document]) -> list[DocumentPublic]:
    """Return documents with how far their review is; one that was deleted meanwhile is left out."""
    listed = find_listed(session, [document.id for document in documents])
    return [
        DocumentPublic(**document.model_dump(exclude={"text"}), **listed[document.id])
        for document in documents
        if document.id in listed
    ]


def build_document_response(session: Session, document: Document) -> DocumentPublic:
    """Return a document with how far its review is; raises DeletedError if it was deleted meanwhile."""
    for response in build_document_responses(session, [document]):
        return response
    raise build_missing_error(session, document.id)
