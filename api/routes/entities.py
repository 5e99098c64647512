"""Extraction: the entities that the served version of the model finds in a document."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, ValidationError

from api.authentication import GuardedRoute
from api.dependencies import ReaderDep, ServicesDep, SessionDep
from api.documents import extract
from api.errors import document_errors
from api.locations import build_locator
from api.schemas import EntitiesResponse, EntityPublic
from api.services import Services
from embeddinggemma_feasibility.annotation_data import Entity
from registry.documents import get_document
from registry.errors import ConflictError
from registry.served_model import LoadedModel
from registry.tables import Document
from registry.text_types import Text


class VersionQuery(BaseModel):
    """Which versions may answer, and how long to wait for one of them."""

    min_version: int | None = Field(
        None, ge=1, le=999_999_999, description="Only this version or a newer one: `live_version` of a job, to read it"
    )
    wait_seconds: float = Field(
        5, ge=0, le=30, allow_inf_nan=False, description="How long to wait for it; then the answer is 409"
    )


class WaitingRoute(GuardedRoute):
    """A guarded route whose requests wait for the version that they ask for; a wait counts as a stream of events."""

    async def wait(self, request: Request, services: Services) -> None:
        """Wait for the version; a query that is refused later does not wait."""
        try:
            query = VersionQuery.model_validate(dict(request.query_params))
        except ValidationError:
            return
        if query.min_version:
            with services.stream_limit.take(request.state.caller.key_id):
                await services.version_waits.wait(query.min_version, query.wait_seconds)


router = APIRouter(prefix="/documents", tags=["documents"], route_class=WaitingRoute)


@router.get("/{document_id}/entities", responses=document_errors(404, 409, 410))
def extract_entities(
    document_id: Text,
    session: SessionDep,
    services: ServicesDep,
    _: ReaderDep,
    query: Annotated[VersionQuery, Query()],
) -> EntitiesResponse:
    """Extract the document's entities with the current model; before the first feedback there are none.

    With `min_version`, the answer is by that version or a newer one, though other API processes may serve it earlier;
    else it is 409, and says which version is served. It comes at once if the version will not be served: it was not
    promoted, or a person has gone back to an earlier one. A document of more than 100,000 characters is read in the
    background: until then, the answer is 503.
    """
    document = get_document(session, document_id)
    model = services.served.get()
    if query.min_version:
        _check_version(services, model, query.min_version)
    if model is None:
        return EntitiesResponse(document_id=document_id, model_version=None, entities=[])
    found = _add_locations(document, extract(session, services, document, model), services)
    return EntitiesResponse(document_id=document_id, model_version=model.version, warning=model.warning, entities=found)


def _check_version(services: Services, model: LoadedModel | None, min_version: int) -> None:
    """Raise ConflictError unless a model is of this version or newer."""
    if model and int(model.version) >= min_version:
        return
    served = f"Version {model.version}" if model else "No version"
    why = services.version_waits.explain(min_version) or (model and model.warning)
    raise ConflictError(f"{served} is served: {why or f'version {min_version} is not there yet, try again'}")


def _add_locations(document: Document, entities: list[Entity], services: Services) -> list[EntityPublic]:
    locate = build_locator(document, services)
    return [
        EntityPublic(
            type=entity.type,
            value=entity.value,
            start=entity.start,
            end=entity.end,
            confidence=entity.confidence,
            location=locate(entity.start, entity.end),
        )
        for entity in entities
    ]
