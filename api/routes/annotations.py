"""Annotations: created, changed and deleted one by one, or replaced by a Label Studio export."""

from typing import Annotated

from fastapi import APIRouter, Body, Header, status
from sqlmodel import Session

from api.annotation_input import check_annotation_count, check_types, resolve_annotations
from api.authentication import GuardedRoute
from api.dependencies import AnnotatorDep, ImporterDep, ReaderDep, ServicesDep, SessionDep
from api.errors import document_errors
from api.locations import Locator, build_locator
from api.schemas import AnnotationCreate, AnnotationPublic, TypeCount, VersionOfAnnotation, VersionsOfAnnotation
from feedback.versions import list_versions_that_learned
from intake.label_studio import LabelStudioExport, count_labels, get_latest_annotation, read_labels
from registry import annotations as queries
from registry.audit import find_annotated_document
from registry.documents import get_document
from registry.errors import StaleRevisionError
from registry.tables import Annotation
from registry.text_types import Text

router = APIRouter(tags=["annotations"], responses=document_errors(404, 410), route_class=GuardedRoute)
RevisionDep = Annotated[
    str | None, Header(alias="If-Match", description="The revision that was read; a newer one is not changed")
]


@router.post(
    "/documents/{document_id}/annotations",
    status_code=status.HTTP_201_CREATED,
    responses=document_errors(400, 409, 413),
)
def create_annotation(
    document_id: Text, new: AnnotationCreate, session: SessionDep, services: ServicesDep, caller: AnnotatorDep
) -> AnnotationPublic:
    """Mark one entity. Models learn it with the next feedback on the document."""
    document = get_document(session, document_id)
    check_annotation_count(queries.count_annotations(session, document_id) + 1, services)
    (resolved,) = resolve_annotations(document, [new], services, caller.name)
    check_types(session, [resolved], services)
    locate = build_locator(document, services)
    annotation = queries.add_annotation(session, document, resolved)
    session.commit()
    return _publish(annotation, locate)


@router.get("/documents/{document_id}/annotations")
def read_annotations(
    document_id: Text, session: SessionDep, services: ServicesDep, _: ReaderDep
) -> list[AnnotationPublic]:
    """List a document's annotations in reading order."""
    locate = build_locator(get_document(session, document_id), services)
    return [_publish(annotation, locate) for annotation in queries.list_annotations(session, document_id)]


@router.get("/types")
def read_types(session: SessionDep, _: ReaderDep) -> list[TypeCount]:
    """List the types of the approved annotations, most used first; `GET /documents?type=…` says where one is used."""
    return [
        TypeCount(type=name, annotations=annotations, documents=documents)
        for name, annotations, documents in queries.count_types(session)
    ]


@router.put("/annotations/{annotation_id}", responses=document_errors(400, 409, 412, 413))
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
    (resolved,) = resolve_annotations(document, [new], services, caller.name)
    check_types(session, [resolved], services)
    locate = build_locator(document, services)
    queries.update_annotation(session, document, annotation, resolved)
    session.commit()
    return _publish(annotation, locate)


@router.get("/annotations/{annotation_id}/versions")
def read_versions_of_annotation(
    annotation_id: Text, session: SessionDep, services: ServicesDep, _: ReaderDep
) -> VersionsOfAnnotation:
    """List the versions that learned an annotation, which may be deleted since, and tell since when it is live."""
    document_id = find_annotated_document(session, annotation_id)
    if document_id is None:
        document_id = queries.get_annotation(session, annotation_id).document_id
    get_document(session, document_id)
    served = services.models.find_alias()
    learned = list_versions_that_learned(session, annotation_id, document_id, served)
    live = [each for each in learned if each.is_live]
    versions = [
        VersionOfAnnotation(
            version=each.version,
            revision=each.annotation.revision,
            reviewer=each.annotation.reviewer,
            job_id=each.job_id,
            decision=each.decision,
            learned_at=each.learned_at,
            is_live=each.is_live,
        )
        for each in learned
    ]
    return VersionsOfAnnotation(live_since=live[-1].learned_at if live else None, versions=versions)


@router.delete(
    "/annotations/{annotation_id}", status_code=status.HTTP_204_NO_CONTENT, responses=document_errors(409, 412)
)
def delete_annotation(annotation_id: Text, session: SessionDep, _: AnnotatorDep, revision: RevisionDep = None) -> None:
    """Delete an annotation."""
    queries.delete_annotation(session, _get_annotation(session, annotation_id, revision))
    session.commit()


@router.post(
    "/documents/{document_id}/annotations/ingest",
    status_code=status.HTTP_201_CREATED,
    responses=document_errors(400, 409, 413),
)
def ingest_label_studio(
    document_id: Text,
    export: Annotated[LabelStudioExport, Body(description="A Label Studio JSON export of this document's task")],
    session: SessionDep,
    services: ServicesDep,
    caller: ImporterDep,
) -> list[AnnotationPublic]:
    """Replace the document's annotations by those of a Label Studio export.

    Values that the export leaves out are taken from the document, so the key needs the scope `read`, too.
    """
    document = get_document(session, document_id)
    latest = get_latest_annotation(export)
    check_annotation_count(count_labels(latest), services)
    annotations = read_labels(latest, document.text, caller.name)
    check_types(session, annotations, services)
    queries.replace_annotations(session, document, annotations)
    locate = build_locator(document, services)
    stored = [_publish(annotation, locate) for annotation in queries.list_annotations(session, document_id)]
    session.commit()
    return stored


def _get_annotation(session: Session, annotation_id: str, revision: str | None) -> Annotation:
    annotation = queries.get_annotation(session, annotation_id)
    if revision is not None and revision.strip('"') != str(annotation.revision):
        raise StaleRevisionError(
            f"Annotation {annotation_id} has revision {annotation.revision} now, not {revision}: read it again"
        )
    return annotation


def _publish(annotation: Annotation, locate: Locator) -> AnnotationPublic:
    return AnnotationPublic(**annotation.model_dump(warnings=False), location=locate(annotation.start, annotation.end))
