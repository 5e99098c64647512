"""The model's versions: read, promote, go back."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.dependencies import ReaderDep, ServicesDep, TrainerDep
from api.schemas import ModelDetail, errors
from registry.models import ModelVersion

router = APIRouter(prefix="/models", tags=["models"])
VersionDep = Annotated[str, Path(pattern="^[1-9][0-9]{0,8}$")]


@router.get("")
def read_models(services: ServicesDep, _: ReaderDep) -> list[ModelVersion]:
    """List all versions with their scores, newest first."""
    return services.models.list_versions()


@router.get("/{version}", responses=errors(404))
def read_model(version: VersionDep, services: ServicesDep, _: ReaderDep) -> ModelDetail:
    """Read a version with the annotations that made it."""
    found = services.models.get_version(version)
    return ModelDetail(**found.model_dump(), lineage=services.models.get_lineage(version))


@router.post("/{version}/promote", responses=errors(404))
def promote_model(version: VersionDep, services: ServicesDep, _: TrainerDep) -> ModelVersion:
    """Serve this version from the next extraction on: a newer one, or an older one to go back to."""
    services.models.promote(version)
    return services.models.get_version(version)
