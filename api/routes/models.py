"""The versions of the model: read, promote, roll back."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Query
from sqlmodel import Session

from api.authentication import GuardedRoute
from api.dependencies import LimitDep, OffsetDep, ReaderDep, ServicesDep, SessionDep, TrainerDep
from api.errors import document_errors
from api.schemas import (
    AnnotationOfVersion,
    LineageDetail,
    ModelDetail,
    ModelPage,
    ModelPublic,
    Promotion,
    PromotionRequest,
)
from api.services import Services
from feedback.rollback import follow_promotion
from feedback.unlearning import check_may_be_promoted
from registry.audit import record_promotion
from registry.jobs import list_answered_jobs
from registry.lessons import find_lessons
from registry.lineage import Origin, TaughtSpan
from registry.model_version import ModelVersion

router = APIRouter(prefix="/models", tags=["models"], route_class=GuardedRoute)
_VERSION = "^[1-9][0-9]{0,8}$"
VersionDep = Annotated[str, Path(pattern=_VERSION)]
BeforeDep = Annotated[str | None, Query(pattern=_VERSION, description="Only versions before this one")]


@router.get("")
def read_models(
    session: SessionDep, services: ServicesDep, _: ReaderDep, limit: LimitDep = 50, before: BeforeDep = None
) -> ModelPage:
    """List the versions with their scores, newest first."""
    found = services.models.list_versions(limit + 1, before)
    items = _publish(session, services, found[:limit])
    return ModelPage(items=items, next_before=items[-1].version if len(found) > limit else None)


@router.get("/{version}", responses=document_errors(404))
def read_model(
    version: VersionDep,
    session: SessionDep,
    services: ServicesDep,
    _: ReaderDep,
    offset: OffsetDep = 0,
    limit: LimitDep = 200,
) -> ModelDetail:
    """Read a version with what it was made from; `offset` and `limit` choose among the documents that it learned."""
    found, lineage = services.models.get_version(version), services.models.get_lineage(version)
    page = dict(islice(lineage.training.items(), offset, offset + limit))
    detail = LineageDetail(
        **lineage.model_dump(include=set(Origin.model_fields)),
        training=_describe_lessons(session, page),
        training_total=len(lineage.training),
        replay=_describe_lessons(session, lineage.replay),
    )
    (version_with_links,) = _publish(session, services, [found])
    return ModelDetail(**version_with_links.model_dump(), lineage=detail)


@router.post("/{version}/promote", responses=document_errors(400, 404, 409, 413))
def promote_model(
    version: VersionDep,
    session: SessionDep,
    services: ServicesDep,
    caller: TrainerDep,
    request: PromotionRequest | None = None,
) -> Promotion:
    """Serve this version from the next extraction on; promote an older one to roll back. It is loaded first.

    What it has not learned is set aside: no model learns it until somebody teaches it again. What was refused or set
    aside, and this version has learned, counts as learned. A version that may have learned a deleted document is
    refused.
    """
    services.models.get_version(version)  # raises NotFoundError for one of another tool
    check_may_be_promoted(session, int(version))
    services.models.load_tagger(version)
    champion = services.models.find_alias()
    services.models.promote(version)
    services.served.ask_again()
    reason = request.reason if request else None
    record_promotion(session, version, champion, reason)
    by = f"{caller.name} ({reason})" if reason else caller.name
    set_aside = follow_promotion(session, version, by, champion)
    session.commit()
    (promoted,) = _publish(session, services, [services.models.get_version(version)])
    return Promotion(**promoted.model_dump(), set_aside=set_aside)


def _publish(session: Session, services: Services, versions: Sequence[ModelVersion]) -> list[ModelPublic]:
    job_ids = list_answered_jobs(session, [each.flow_run_id for each in versions if each.flow_run_id])
    return [
        ModelPublic(
            **each.model_dump(),
            prefect_run=services.prefect.get_url(each.flow_run_id) if each.flow_run_id else None,
            job_ids=job_ids.get(each.flow_run_id or "", []),
        )
        for each in versions
    ]


def _describe_lessons(
    session: Session, documents: Mapping[str, str | Sequence[TaughtSpan]]
) -> dict[str, list[AnnotationOfVersion]]:
    """Return what a version learned, by its documents: as the jobs' lessons say, or as an earlier release stored it."""
    jobs = {document_id: taught for document_id, taught in documents.items() if isinstance(taught, str)}
    lessons = find_lessons(session, jobs)
    annotations = {
        document_id: lessons[document_id].annotations if isinstance(taught, str) else taught
        for document_id, taught in documents.items()
        if document_id in lessons or not isinstance(taught, str)
    }
    return {
        document_id: [AnnotationOfVersion.model_validate(each) for each in found]
        for document_id, found in annotations.items()
    }
