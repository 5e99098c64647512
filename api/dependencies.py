"""What routes depend on: the parts of the service, a database session, a caller with a scope."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials
from sqlmodel import Session

from api.authentication import Caller, bearer
from api.services import Services
from registry.audit import set_principal
from registry.database import translate_database_errors
from registry.keys import Scope


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


@asynccontextmanager
async def hold_reading_slot(request: Request, services: Services) -> AsyncIterator[None]:
    """Read no more PDFs at once than there are cores, and leave one core to other keys.

    The others wait, and hold neither a thread nor a database session.
    """
    async with services.caller_reading_slots[request.state.caller.key_id], services.reading_slots:
        yield


async def _take_reading_slot(request: Request, services: ServicesDep) -> AsyncIterator[None]:
    async with hold_reading_slot(request, services):
        yield


ReadingDep = Annotated[None, Depends(_take_reading_slot, scope="function")]


def _open_session(
    services: ServicesDep, _: Annotated[None, Depends(_take_slot, scope="function")]
) -> Iterator[Session]:
    """Open a session whose rows stay loaded after a commit: a row that is deleted then can still be answered."""
    with translate_database_errors(), Session(services.engine, expire_on_commit=False) as session:
        yield session


SessionDep = Annotated[Session, Depends(_open_session, scope="function")]


async def _get_caller(
    request: Request, session: SessionDep, _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    """Return the caller that `GuardedRoute` has checked; changes in the session are recorded as the caller's."""
    caller: Caller = request.state.caller
    caller.check_not_revoked(session)
    set_principal(session, caller.name)
    return caller


ReaderDep = Annotated[Caller, Security(_get_caller, scopes=[Scope.READ.value])]
AnnotatorDep = Annotated[Caller, Security(_get_caller, scopes=[Scope.ANNOTATE.value])]
AdministratorDep = Annotated[Caller, Security(_get_caller, scopes=[Scope.ADMIN.value])]
ImporterDep = Annotated[Caller, Security(_get_caller, scopes=[Scope.ANNOTATE.value, Scope.READ.value])]
ReviewerDep = Annotated[Caller, Security(_get_caller, scopes=[Scope.ANNOTATE.value, Scope.TRAIN.value])]
TrainerDep = Annotated[Caller, Security(_get_caller, scopes=[Scope.TRAIN.value])]


async def _get_scraper(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Caller:
    """Return the caller that `ScrapedRoute` has checked, without a session: the database may be away."""
    caller: Caller = request.state.caller
    return caller


ScraperDep = Annotated[Caller, Security(_get_scraper, scopes=[Scope.METRICS.value])]

OffsetDep = Annotated[int, Query(ge=0, le=1_000_000_000, description="How many to skip")]
LimitDep = Annotated[int, Query(ge=1, le=200, description="How many to return at most")]
