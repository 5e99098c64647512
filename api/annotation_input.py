"""Annotations as clients send them, checked against the limits and given offsets."""

from api.dependencies import Services
from api.schemas import AnnotationCreate
from intake.location import find_offsets
from registry.errors import InvalidInputError
from registry.tables import AnnotationBase, Document


def check_annotation_count(count: int, services: Services) -> None:
    """Raise InvalidInputError if a document may not have so many annotations."""
    if count > services.settings.max_annotations:
        raise InvalidInputError(f"A document has {services.settings.max_annotations} annotations at most, not {count}")


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
