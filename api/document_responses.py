"""Documents as clients see them."""

from collections.abc import Sequence

from sqlmodel import Session

from api.schemas import DocumentPublic
from registry.listed_documents import find_listed
from registry.tables import Document


def build_document_responses(session: Session, documents: Sequence[Document]) -> list[DocumentPublic]:
    """Return documents with how far their review is; one that is being deleted is left out."""
    listed = find_listed(session, [document.id for document in documents])
    return [
        DocumentPublic(**document.model_dump(exclude={"text"}), **listed[document.id])
        for document in documents
        if document.id in listed
    ]
