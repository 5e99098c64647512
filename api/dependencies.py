"""What routes ask for: a session, the parts of the service, a caller with a scope."""

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
from registry.audit import act_for
from registry.document_store import DocumentStore
from registry.errors import ForbiddenError, TooManyError, UnauthorizedError
from registry.keys import Scope, find_key
from registry.models import ModelRegistry
from registry.served_model import ServedModel
from registry.settings import Settings


class RequestLimit:
    """Counts each key's requests of the last minute, in this process."""

    def __init__(self, settings: Settings) -> None:
        self._most = RateLimitItemPerMinute(settings.requests_per_minute)
        self._counter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, key_id: str) -> None:
        """Count a request; raises TooManyError if it is one too many."""
        if not self._counter.hit(self._most, key_id):
            raise TooManyError(f"More than {self._most.amount} requests a minute with this key: wait a minute")


@dataclass(frozen=True)
class Services:
    """What lives as long as the service."""

    settings: Settings
    engine: Engine
    store: DocumentStore
    cache: DiskCache
    models: ModelRegistry
    served: ServedModel
    prefect: PrefectRuns
    launcher: Launcher
    requests: RequestLimit
    turns: Semaphore


async def get_services(request: Request) -> Services:
    """Return what the lifespan has built."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def _take_turn(services: ServicesDep) -> AsyncIterator[None]:
    """Let no more requests begin than there are connections: they would wait for each other's, and keep the threads.

    Like the session, a turn ends when the answer is made (`scope="function"`), not when a slow client has read it.
    """
    async with services.turns:
        yield


def _open_session(
    services: ServicesDep, _: Annotated[None, Depends(_take_turn, scope="function")]
) -> Iterator[Session]:
    with Session(services.engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(_open_session, scope="function")]
_bearer = HTTPBearer(auto_error=False, description="An API key, as `contract-feedback add-key` makes them")


def _require(scope: Scope) -> Callable[..., str]:
    def check_scope(
        session: SessionDep,
        services: ServicesDep,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> str:
        key = find_key(session, credentials.credentials) if credentials else None
        if key is None:
            raise UnauthorizedError("Send a valid API key: Authorization: Bearer cf_…")
        services.requests.count(key.id)
        if scope not in key.scopes and Scope.ADMIN not in key.scopes:
            raise ForbiddenError(f"The key {key.name!r} lacks the scope {scope.value!r}")
        caller = key.name
        session.commit()  # the key's last use: nobody is to wait for it until the request ends
        act_for(session, caller)
        return caller

    return check_scope


ReaderDep = Annotated[str, Depends(_require(Scope.READ))]
AnnotatorDep = Annotated[str, Depends(_require(Scope.ANNOTATE))]
AdministratorDep = Annotated[str, Depends(_require(Scope.ADMIN))]
TrainerDep = Annotated[str, Depends(_require(Scope.TRAIN))]

OffsetDep = Annotated[int, Query(ge=0, le=1_000_000_000, description="How many to skip")]
LimitDep = Annotated[int, Query(ge=1, le=200, description="How many to return at most")]
