"""Annotations: one by one, and whole Label Studio exports."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Header, status
from sqlmodel import Session

from api.dependencies import AnnotatorDep, ReaderDep, Services, ServicesDep, SessionDep
from api.schemas import AnnotationCreate, AnnotationPublic, Text, errors
from intake.label_studio import LabelStudioTask, read_label_studio
from intake.location import find_offsets
from registry import annotations as queries
from registry.documents import get_document
from registry.errors import InvalidInputError, StaleRevisionError
from registry.tables import Annotation, AnnotationBase, Document

router = APIRouter(tags=["annotations"], responses=errors(404))
RevisionDep = Annotated[
    str | None, Header(alias="If-Match", description="Change this revision only, not what somebody made of it since")
]


@router.post("/documents/{document_id}/annotations", status_code=status.HTTP_201_CREATED, responses=errors(400, 409))
def create_annotation(
    document_id: Text, new: AnnotationCreate, session: SessionDep, services: ServicesDep, caller: AnnotatorDep
) -> AnnotationPublic:
    """Mark one entity. Training waits until feedback is given on the document."""
    document = get_document(session, document_id)
    check_number(queries.count_annotations(session, document_id) + 1, services)
    annotation = queries.add_annotation(session, document, resolve_annotation(document, new, services, caller))
    session.commit()
    return AnnotationPublic.model_validate(annotation)


@router.get("/documents/{document_id}/annotations")
def read_annotations(document_id: Text, session: SessionDep, _: ReaderDep) -> list[AnnotationPublic]:
    """List a document's annotations in reading order."""
    get_document(session, document_id)
    return _publish(queries.list_annotations(session, document_id))


@router.put("/annotations/{annotation_id}", responses=errors(400, 409, 412))
def change_annotation(
    annotation_id: Text,
    new: AnnotationCreate,
    session: SessionDep,
    services: ServicesDep,
    caller: AnnotatorDep,
    revision: RevisionDep = None,
) -> AnnotationPublic:
    """Replace an annotation."""
    annotation = _get_annotation(session, annotation_id, revision)
    document = get_document(session, annotation.document_id)
    queries.update_annotation(session, document, annotation, resolve_annotation(document, new, services, caller))
    session.commit()
    return AnnotationPublic.model_validate(annotation)


@router.delete("/annotations/{annotation_id}", status_code=status.HTTP_204_NO_CONTENT, responses=errors(409, 412))
def delete_annotation(annotation_id: Text, session: SessionDep, _: AnnotatorDep, revision: RevisionDep = None) -> None:
    """Delete an annotation."""
    session.delete(_get_annotation(session, annotation_id, revision))
    session.commit()


@router.post(
    "/documents/{document_id}/annotations/ingest", status_code=status.HTTP_201_CREATED, responses=errors(400, 409)
)
def ingest_label_studio(
    document_id: Text,
    export: Annotated[list[LabelStudioTask], Body(description="A Label Studio JSON export of this document's task")],
    session: SessionDep,
    services: ServicesDep,
    caller: AnnotatorDep,
) -> list[AnnotationPublic]:
    """Take over the annotations of a Label Studio export, in place of the document's own."""
    document = get_document(session, document_id)
    annotations = read_label_studio(export, document.text, caller)
    check_number(len(annotations), services)
    queries.replace_annotations(session, document, annotations)
    session.commit()
    return _publish(queries.list_annotations(session, document_id))


def _get_annotation(session: Session, annotation_id: str, revision: str | None) -> Annotation:
    annotation = queries.get_annotation(session, annotation_id)
    if revision is not None and revision.strip('"') != str(annotation.revision):
        raise StaleRevisionError(
            f"Annotation {annotation_id} has revision {annotation.revision} by now, not {revision}: read it again"
        )
    return annotation


def check_number(count: int, services: Services) -> None:
    """Raise InvalidInputError if these are too many annotations for one document."""
    if count > services.settings.max_annotations:
        raise InvalidInputError(f"A document has {services.settings.max_annotations} annotations at most, not {count}")


def resolve_annotation(document: Document, new: AnnotationCreate, services: Services, reviewer: str) -> AnnotationBase:
    """Return the annotation with offsets, from its location if it gives none, and with its reviewer."""
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


def _publish(found: Sequence[Annotation]) -> list[AnnotationPublic]:
    return [AnnotationPublic.model_validate(annotation) for annotation in found]
