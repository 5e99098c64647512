"""The guard of servers on this machine: what a page of another site sends through a browser is refused."""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

_LOOPBACK_NAMES = frozenset({"127.0.0.1", "::1", "localhost"})


class LoopbackGuard:
    """ASGI middleware: over loopback, a request must name this machine as its host and, if it has one, its origin.

    A browser on this machine can reach what listens on loopback, and so can each page that it shows: with a request
    to 127.0.0.1, whose `Origin` is then the page's, or by a name of its own that resolves to 127.0.0.1 (DNS rebinding),
    which is then the `Host`. `allowed_hosts` are the names under which a proxy on this machine serves it.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = ()) -> None:
        self._app, self._allowed_hosts = app, frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a foreign request, or pass it on."""
        if scope["type"] not in {"http", "websocket"} or not _is_loopback(scope):
            await self._app(scope, receive, send)
        elif problem := self._find_problem(Headers(scope=scope)):
            refuse = JSONResponse({"detail": problem}, 403) if scope["type"] == "http" else WebSocketClose()
            await refuse(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _find_problem(self, headers: Headers) -> str | None:
        host = _split_host(f"//{headers.get('host', '')}")
        if host is None or host[0] not in _LOOPBACK_NAMES | self._allowed_hosts:
            return "The host is not this machine: use http://127.0.0.1, or set CONTRACT_FEEDBACK_ALLOWED_HOSTS"
        origin = headers.get("origin")
        if origin is None or self._is_own(origin, host):
            return None
        return "Pages of another site have no access: open the page at this server's own address"

    def _is_own(self, origin: str, host: tuple[str, int | None]) -> bool:
        """Tell whether a page of this origin was served by this server."""
        found = _split_host(origin)
        if found is None:
            return False
        return found[0] in self._allowed_hosts or (found[0] in _LOOPBACK_NAMES and found[1] == host[1])


def _is_loopback(scope: Scope) -> bool:
    """Tell whether the connection came in on a loopback address."""
    try:
        return ip_address(scope["server"][0]).is_loopback
    except (TypeError, ValueError):  # a test client, or a Unix socket
        return False


def _split_host(url: str) -> tuple[str, int | None] | None:
    """Return the name and the port in a URL; None if it has no name or is malformed."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (name, port) if name else None
