"""The versions of the model: read, promote, roll back."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.authentication import GuardedRoute
from api.dependencies import LimitDep, ReaderDep, ServicesDep, SessionDep, TrainerDep
from api.errors import document_errors
from api.schemas import ModelDetail, ModelPage
from feedback.claiming import accept_refused_jobs
from registry.audit import record_promotion
from registry.models import ModelVersion

router = APIRouter(prefix="/models", tags=["models"], route_class=GuardedRoute)
_VERSION = "^[1-9][0-9]{0,8}$"
VersionDep = Annotated[str, Path(pattern=_VERSION)]
BeforeDep = Annotated[str | None, Query(pattern=_VERSION, description="Only versions before this one")]


@router.get("")
def read_models(services: ServicesDep, _: ReaderDep, limit: LimitDep = 50, before: BeforeDep = None) -> ModelPage:
    """List the versions with their scores, newest first."""
    found = services.models.list_versions(limit + 1, before)
    items = found[:limit]
    return ModelPage(items=items, next_before=items[-1].version if len(found) > limit else None)


@router.get("/{version}", responses=document_errors(404))
def read_model(version: VersionDep, services: ServicesDep, _: ReaderDep) -> ModelDetail:
    """Read a version with the annotations it was trained on."""
    found = services.models.get_version(version)
    return ModelDetail(**found.model_dump(), lineage=services.models.get_lineage(version))


@router.post("/{version}/promote", responses=document_errors(404))
def promote_model(version: VersionDep, session: SessionDep, services: ServicesDep, caller: TrainerDep) -> ModelVersion:
    """Serve this version from the next extraction on; promote an older one to roll back. It is loaded first.

    Feedback that was set aside because this version was refused counts as learned from then on.
    """
    services.models.get_version(version)  # raises NotFoundError for one of another tool
    services.models.load_tagger(version)
    champion = services.models.find_alias()
    services.models.promote(version)
    services.served.ask_again()
    record_promotion(session, version, champion)
    accept_refused_jobs(session, version, caller.name)
    session.commit()
    return services.models.get_version(version)
