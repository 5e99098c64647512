"""Health of the service."""

from fastapi import APIRouter

from api.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/health")
async def read_health() -> Health:
    """Answer without asking any other part."""
    return Health()
