"""The versions of the model: read, promote, roll back."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.authentication import GuardedRoute
from api.dependencies import ReaderDep, ServicesDep, SessionDep, TrainerDep
from api.errors import document_errors
from api.schemas import ModelDetail
from feedback.claiming import accept_refused_jobs
from registry.audit import record_promotion
from registry.models import ModelVersion

router = APIRouter(prefix="/models", tags=["models"], route_class=GuardedRoute)
VersionDep = Annotated[str, Path(pattern="^[1-9][0-9]{0,8}$")]


@router.get("")
def read_models(services: ServicesDep, _: ReaderDep) -> list[ModelVersion]:
    """List all versions with their scores, newest first."""
    return services.models.list_versions()


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
