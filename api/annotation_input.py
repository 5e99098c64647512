"""Annotations as clients send them, checked against the limits and given offsets."""

from collections.abc import Sequence

from sqlmodel import Session

from api.schemas import AnnotationCreate
from api.services import Services
from intake.location import find_offsets
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


def resolve_annotation(document: Document, new: AnnotationCreate, services: Services, reviewer: str) -> AnnotationBase:
    """Return the annotation with offsets, found from its location if it has none, and with its reviewer."""
    start, end = new.start, new.end
    if start is None or end is None:
        if document.media_type != "application/pdf":
            raise InvalidInputError("Only a PDF has locations: give start and end")
        boxes = services.store.load_boxes(document.id)
        start, end = find_offsets(boxes, new.location or [], document.text, new.value)
    return AnnotationBase(
        type=new.type,
        value=new.value,
        start=start,
        end=end,
        reviewer=new.reviewer or reviewer,
        notes=new.notes,
        status=new.status,
    )
