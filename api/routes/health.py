"""Health of the service."""

from fastapi import APIRouter

from api.dependencies import ServicesDep
from api.errors import document_errors
from api.schemas import Health
from registry.errors import UnavailableError

router = APIRouter(tags=["health"])


@router.get("/health")
async def read_health() -> Health:
    """Answer without asking any other part."""
    return Health()


@router.get("/ready", responses=document_errors(503))
async def read_readiness(services: ServicesDep) -> Health:
    """Tell whether this process can answer requests: its database answers within three seconds and has its tables.

    Without Prefect or MLflow it can: feedback is stored, and the model that is loaded serves.
    """
    database = await services.database.ask()
    if database.problem:
        raise UnavailableError(database.problem)
    return Health()
