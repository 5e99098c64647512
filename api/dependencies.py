"""What routes depend on: a database session, the parts of the service, a caller with a scope."""

from asyncio import Semaphore
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from sqlalchemy import Engine
from sqlmodel import Session

from embeddinggemma_feasibility.disk_cache import DiskCache
from feedback.launcher import Launcher
from feedback.prefect_runs import PrefectRuns
from registry.audit import set_principal
from registry.database import translate_database_errors
from registry.document_store import DocumentStore
from registry.encoding_queue import EncodingQueue
from registry.errors import ForbiddenError, TooManyError, UnauthorizedError
from registry.keys import Scope, find_key
from registry.models import ModelRegistry
from registry.served_model import ServedModel
from registry.settings import Settings


class RequestLimit:
    """Counts the requests of each key in the last minute, in this process."""

    def __init__(self, settings: Settings) -> None:
        self._limit = RateLimitItemPerMinute(settings.requests_per_minute)
        self._counter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, key_id: str) -> None:
        """Count a request; raises TooManyError above the limit."""
        if not self._counter.hit(self._limit, key_id):
            raise TooManyError(f"More than {self._limit.amount} requests a minute with this key: wait a minute")


@dataclass(frozen=True)
class Services:
    """What exists as long as the service runs."""

    settings: Settings
    engine: Engine
    store: DocumentStore
    cache: DiskCache
    models: ModelRegistry
    served: ServedModel
    encoding: EncodingQueue
    prefect: PrefectRuns
    launcher: Launcher
    request_limit: RequestLimit
    request_slots: Semaphore


async def get_services(request: Request) -> Services:
    """Return the parts of the service, built by its lifespan."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def _take_slot(services: ServicesDep) -> AsyncIterator[None]:
    """Process no more requests at once than there are connections.

    Otherwise, requests that hold a connection and wait for a thread would block requests that hold a thread and wait
    for a connection. Like the session, a slot is free as soon as the response is made (`scope="function"`), however
    slowly the client reads it.
    """
    async with services.request_slots:
        yield


def _open_session(
    services: ServicesDep, _: Annotated[None, Depends(_take_slot, scope="function")]
) -> Iterator[Session]:
    with translate_database_errors(), Session(services.engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(_open_session, scope="function")]
_bearer = HTTPBearer(auto_error=False, description="An API key, made by `contract-feedback add-key`")


def _require(scope: Scope) -> Callable[..., str]:
    def check_scope(
        session: SessionDep,
        services: ServicesDep,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> str:
        key = find_key(session, credentials.credentials) if credentials else None
        if key is None:
            raise UnauthorizedError("Send a valid API key: Authorization: Bearer cf_…")
        services.request_limit.count(key.id)
        if scope not in key.scopes and Scope.ADMIN not in key.scopes:
            raise ForbiddenError(f"The key {key.name!r} lacks the scope {scope.value!r}")
        caller = key.name
        session.commit()  # records the key's last use and releases its lock before the request is processed
        set_principal(session, caller)
        return caller

    return check_scope


ReaderDep = Annotated[str, Depends(_require(Scope.READ))]
AnnotatorDep = Annotated[str, Depends(_require(Scope.ANNOTATE))]
AdministratorDep = Annotated[str, Depends(_require(Scope.ADMIN))]
TrainerDep = Annotated[str, Depends(_require(Scope.TRAIN))]

OffsetDep = Annotated[int, Query(ge=0, le=1_000_000_000, description="How many to skip")]
LimitDep = Annotated[int, Query(ge=1, le=200, description="How many to return at most")]
