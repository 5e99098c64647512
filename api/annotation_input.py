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
    places, resolved = None, []
    for annotation in new:
        start, end = annotation.start, annotation.end
        if start is None or end is None:
            places = places or _load_places(document, services)
            start, end = places.find_offsets(annotation.location or [], document.text, annotation.value)
        resolved.append(
            AnnotationBase(
                type=annotation.type,
                value=annotation.value,
                start=start,
                end=end,
                reviewer=annotation.reviewer or reviewer,
                notes=annotation.notes,
                status=annotation.status,
            )
        )
    return resolved


def _load_places(document: Document, services: Services) -> Places:
    if document.media_type != "application/pdf":
        raise InvalidInputError("Only a PDF has locations: give start and end")
    return Places(services.store.load_boxes(document.id))
