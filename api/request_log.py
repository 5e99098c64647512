"""The log of requests: the id that each one gets, and the line at its end."""

import logging
import re
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.authentication import Caller
from registry.logs import set_log_ids

_HEADER = "X-Request-ID"
_SANE_ID = re.compile(r"[A-Za-z0-9._:=+/-]{1,128}")
_PROBES = {"/health", "/ready", "/metrics"}
_SHOWN_CHARACTERS = 200  # of a path, which clients choose
_logger = logging.getLogger("contract_feedback.access")


class RequestLog:
    """ASGI middleware, outside all others: gives each request an id, answers with it, and logs one line at the end.

    The id is that of the request's `X-Request-ID`, unless it is longer than 128 characters or has unusual ones. Probes
    are logged at the level DEBUG. Query strings are not logged: they may quote contracts.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(_HEADER, "")
        request_id = sent if _SANE_ID.fullmatch(sent) else uuid4().hex
        set_log_ids(request_id=request_id)  # for good: uvicorn logs a trace after the return
        started, status, size = time.perf_counter(), 0, 0

        async def send_and_count(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_HEADER] = request_id
            size += len(message.get("body", b""))
            await send(message)

        scope.setdefault("state", {})
        try:
            await self._app(scope, receive, send_and_count)
        finally:
            _log(scope, status, size, time.perf_counter() - started)


def _log(scope: Scope, status: int, size: int, seconds: float) -> None:
    """Log a request's line; a status of 0 says that the client left before there was an answer."""
    level = logging.DEBUG if scope["path"] in _PROBES else logging.INFO
    if not _logger.isEnabledFor(level):
        return
    caller: Caller | None = scope["state"].get("caller")
    fields = {
        "method": scope["method"],
        "path": scope["path"][:_SHOWN_CHARACTERS],
        "status": status,
        "milliseconds": round(1000 * seconds, 1),
        "bytes": size,
        "key_id": caller.key_id if caller else None,
        "key_name": caller.name if caller else None,
        "client": scope["client"][0] if scope.get("client") else None,
    }
    by = f"key {caller.key_id} of {caller.name}" if caller else "no key"
    message = "%(method)s %(path)s from %(client)s, %(by)s: %(status)d in %(milliseconds)s ms, %(bytes)d bytes"
    _logger.log(level, message, {**fields, "by": by}, extra=fields)
