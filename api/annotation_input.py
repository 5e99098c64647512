"""Annotations as clients send them, checked against the limits and given offsets."""

from collections.abc import Sequence

from sqlmodel import Session

from api.schemas import AnnotationCreate
from api.services import Services
from intake.location import Places
from registry.annotations import list_types
from registry.errors import InvalidInputError
from registry.tables import AnnotationBase, AnnotationStatus, Document


def check_annotation_count(count: int, services: Services) -> None:
    """Raise InvalidInputError if a document may not have so many annotations."""
    if count > services.settings.max_annotations:
        raise InvalidInputError(f"A document has {services.settings.max_annotations} annotations at most, not {count}")


def check_types(session: Session, new: Sequence[AnnotationBase], services: Services) -> None:
    """Raise InvalidInputError if approved annotations of new types would bring the types above the limit."""
    existing, limit = set(list_types(session)), services.settings.max_types
    added = {annotation.type for annotation in new if annotation.status == AnnotationStatus.APPROVED} - existing
    if added and len(existing) + len(added) > limit:
        raise InvalidInputError(
            f"There are {len(existing)} entity types, {limit} at most, and this adds {len(added)}, such as "
            f"{min(added)!r}: use an existing type, delete the annotations of types that are no longer needed, or "
            "raise CONTRACT_FEEDBACK_MAX_TYPES"
        )


def resolve_annotations(
    document: Document, new: Sequence[AnnotationCreate], services: Services, reviewer: str
) -> list[AnnotationBase]:
    """Return the annotations with offsets, found from their locations if they have none, and with their reviewers."""
    places = None
    if any(annotation.start is None or annotation.end is None for annotation in new):
        if document.media_type != "application/pdf":
            raise InvalidInputError("Only a PDF has locations: give start and end")
        places = Places(services.store.load_boxes(document.id))
    return [_resolve(document, annotation, places, reviewer) for annotation in new]


def _resolve(document: Document, new: AnnotationCreate, places: Places | None, reviewer: str) -> AnnotationBase:
    start, end = new.start, new.end
    if places and (start is None or end is None):
        start, end = places.find_offsets(new.location or [], document.text, new.value)
    return AnnotationBase(
        type=new.type,
        value=new.value,
        start=start,
        end=end,
        reviewer=new.reviewer or reviewer,
        notes=new.notes,
        status=new.status,
    )
