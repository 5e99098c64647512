"""The guard of servers on this machine: what a page of another site sends through a browser is refused."""

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(?::([0-9]+))?", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://(.+)")


class Host(NamedTuple):
    """A name or address, in lower case, and a port if one is given."""

    name: str
    port: str | None


class LoopbackGuard:
    """ASGI middleware: over loopback, a request must name this machine as its host and, if it has one, its origin.

    A browser on this machine can reach what listens on loopback, and so can each page that it shows: with a request
    to 127.0.0.1, whose `Origin` is then the page's, or by a name of its own that resolves to 127.0.0.1 (DNS rebinding),
    which is then the `Host`. An address as host is no such name. `allowed_hosts` are this server's names elsewhere: a
    proxy's on this machine, for one.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = ()) -> None:
        self._app, self._allowed_hosts = app, frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a foreign request, or pass it on."""
        if scope["type"] not in {"http", "websocket"} or not _came_over_loopback(scope):
            await self._app(scope, receive, send)
        elif problem := self._find_problem(Headers(scope=scope)):
            refuse = JSONResponse({"detail": problem}, 403) if scope["type"] == "http" else WebSocketClose()
            await refuse(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _find_problem(self, headers: Headers) -> str | None:
        host = _parse_host(headers.get("host", ""))
        if host is None or (_parse_address(host.name) is None and host.name not in self._allowed_hosts):
            return "The host is not this machine: use http://127.0.0.1, or set CONTRACT_FEEDBACK_ALLOWED_HOSTS"
        origin = headers.get("origin")
        if origin is None or self._is_own(origin, host):
            return None
        return "Pages of another site have no access: open the page at this server's own address"

    def _is_own(self, origin: str, host: Host) -> bool:
        """Tell whether a page of this origin was served by this server."""
        match = _ORIGIN.fullmatch(origin)
        found = _parse_host(match[1]) if match else None
        if found is None:
            return False
        is_same_port = is_loopback(found.name) and is_loopback(host.name) and found.port == host.port
        return found == host or is_same_port or found.name in self._allowed_hosts


def _came_over_loopback(scope: Scope) -> bool:
    return bool(scope["server"]) and is_loopback(str(scope["server"][0]))


def is_loopback(name: str) -> bool:
    """Tell whether a host, a name or an address, is this machine's loopback."""
    address = _parse_address(name)
    return address is not None and address.is_loopback


def _parse_address(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host stands for; None for a name that a DNS server is asked for."""
    if name == "localhost":
        return IPv4Address("127.0.0.1")
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _parse_host(text: str) -> Host | None:
    match = _HOST.fullmatch(text)
    return Host(match[1].lower(), match[2]) if match else None
