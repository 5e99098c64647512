"""Who sends a request: its API key is checked before its body is read, and no more is read than is allowed."""

import hashlib
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from math import inf
from typing import Any, get_args, get_type_hints

from fastapi import HTTPException, Request, params
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBearer
from sqlmodel import Session
from starlette.types import Message, Receive, Send
from starlette.types import Scope as ASGIScope

from api.services import Services
from registry.database import translate_database_errors
from registry.errors import ForbiddenError, TooLargeError, UnauthorizedError, UnavailableError
from registry.keys import Scope, find_key
from registry.settings import Settings
from registry.tables import ApiKey

_FORM_BYTES = 10_000  # of a form around its file
_KEY_CHECK_SECONDS = 1.0
_SCOPES = {
    Scope.READ: "read documents, their texts, annotations and history, entities, jobs, versions, the system's status",
    Scope.ANNOTATE: "upload and delete documents; create, change and delete annotations (import them only with `read`)",
    Scope.TRAIN: "send feedback (with annotations in it only with `annotate`), start training runs, promote versions",
    Scope.METRICS: "read the metrics: numbers, and no text, name or id",
    Scope.ADMIN: "all of this, read the audit log, and manage webhooks",
}
bearer = HTTPBearer(
    auto_error=False,
    description="An API key, made by `contract-feedback add-key`. Its scopes say what it may do:\n\n"
    + "\n".join(f"- `{scope}`: {permitted}" for scope, permitted in _SCOPES.items()),
)

_basic = HTTPBasic(auto_error=False)


@dataclass(frozen=True)
class Caller:
    """The API key that a request came with."""

    key_id: str
    name: str
    scopes: frozenset[str]
    checked_at: float

    def may(self, scope: Scope) -> bool:
        """Tell whether the key has a scope."""
        return not self.scopes.isdisjoint({scope, Scope.ADMIN})

    def check_not_revoked(self, session: Session) -> None:
        """Raise UnauthorizedError if the key was revoked while the body came in, which may take long."""
        if time.monotonic() - self.checked_at > _KEY_CHECK_SECONDS:
            key = session.get(ApiKey, self.key_id)
            if key is None or key.revoked_at:
                raise UnauthorizedError("The API key was revoked")

    def require(self, scope: Scope) -> None:
        """Raise ForbiddenError unless the key has a scope."""
        if not self.may(scope):
            raise ForbiddenError(f"The key {self.name!r} lacks the scope {scope.value!r}")


class GuardedRoute(APIRoute):
    """A route that puts the caller into the request's state, or refuses, before the body is read.

    The caller needs the scopes of the endpoint's `Security` parameters. A body may be as large as an upload; one of
    JSON may have `max_json_bytes` and `max_json_values`. Of one key, only so many uploads, other changes and reads are
    received, processed and answered at once; the others wait unread, so that no key takes all threads, connections
    and memory. Streams of events last for minutes: they are counted instead, and refused above a limit.
    """

    async def handle(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        services: Services = scope["app"].state.services
        request = Request(scope, receive)
        request.state.caller = caller = await self.admit(request, services, await self.read_key(request) or "")
        for required in _list_scopes(self.endpoint):
            caller.require(required)
        has_form = self.body_field is not None and isinstance(self.body_field.field_info, params.Form)
        limited = _limit_body(request, *_get_limits(services.settings, has_form))
        kind = "upload" if has_form else "read" if scope["method"] == "GET" else "change"
        async with AsyncExitStack() as held:
            if self.is_sse_stream:
                held.enter_context(services.stream_limit.take(caller.key_id))
            else:
                await self.wait(request, services)
                await held.enter_async_context(services.caller_slots[caller.key_id, kind])
            await super().handle(scope, limited, send)

    async def wait(self, request: Request, services: Services) -> None:
        """Wait for what a request asks to wait for; it holds nothing meanwhile."""

    async def read_key(self, request: Request) -> str | None:
        """Return the API key that a request came with."""
        credentials = await bearer(request)
        return credentials.credentials if credentials else None

    async def admit(self, request: Request, services: Services, key: str) -> Caller:
        """Return whose key this is; raises UnauthorizedError."""
        return await _authenticate(request, services, key)


class BasicGuardedRoute(GuardedRoute):
    """A guarded route that also takes the key as the password of Basic authentication, of any user."""

    async def read_key(self, request: Request) -> str | None:
        """Return the API key that a request came with."""
        with suppress(HTTPException):  # the password is not in base64
            if credentials := await _basic(request):
                return credentials.password
        return await super().read_key(request)


class ScrapedRoute(GuardedRoute):
    """A guarded route that admits, while the database is away, the keys that it admitted when they came last."""

    async def admit(self, request: Request, services: Services, key: str) -> Caller:
        """Return whose key this is; raises UnauthorizedError, and UnavailableError if that cannot be known."""
        key_hash = hashlib.sha256(key.encode()).hexdigest()
        admitted: dict[str, Caller] = request.app.state.scrapers
        database = await services.database.ask()
        if database.problem:
            if key_hash in admitted:
                return admitted[key_hash]
            raise UnavailableError(database.problem)
        admitted.pop(key_hash, None)
        admitted[key_hash] = await super().admit(request, services, key)
        return admitted[key_hash]


@cache
def _list_scopes(endpoint: Callable[..., Any]) -> list[Scope]:
    parameters = chain.from_iterable(get_args(hint) for hint in get_type_hints(endpoint, include_extras=True).values())
    return [Scope(name) for each in parameters if isinstance(each, params.Security) for name in each.scopes or ()]


async def _authenticate(request: Request, services: Services, key: str) -> Caller:
    if key:
        async with services.request_slots:
            if caller := await run_in_threadpool(_find_caller, services, key):
                services.request_limit.count(caller.key_id)
                return caller
    services.refusal_limit.count(request.client.host if request.client else "")
    raise UnauthorizedError("Send a valid API key: Authorization: Bearer cf_…")


def _find_caller(services: Services, key: str) -> Caller | None:
    with translate_database_errors(), Session(services.engine) as session:
        found = find_key(session, key)
        caller = Caller(found.id, found.name, frozenset(found.scopes), time.monotonic()) if found else None
        with suppress(UnavailableError), translate_database_errors():  # on a full disk, one may still read
            session.commit()  # records the key's last use
        return caller


def _get_limits(settings: Settings, has_form: bool) -> tuple[int, float]:
    """Return how many bytes and commas a body may have; JSON has about as many values as commas."""
    if has_form:
        return settings.max_upload_bytes + _FORM_BYTES, inf
    return settings.max_json_bytes, settings.max_json_values


def _limit_body(request: Request, max_bytes: int, max_commas: float) -> Receive:
    """Return what receives the body; it raises an error, as this does, if the body is larger than `max_bytes`.

    The number of values is limited, too, since the event loop parses and checks them.
    """
    problem = f"The body is larger than {max_bytes} bytes"
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise TooLargeError(problem)
    received = commas = 0

    async def receive() -> Message:
        nonlocal received, commas
        message = await request.receive()
        part = message.get("body", b"")
        received += len(part)
        commas += part.count(b",")
        if received > max_bytes:
            raise HTTPException(TooLargeError.status_code, problem)  # FastAPI answers any other error with 400
        if commas > max_commas:
            raise HTTPException(TooLargeError.status_code, f"The JSON has more than {max_commas} values")
        return message

    return receive
