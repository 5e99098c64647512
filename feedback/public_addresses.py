"""Requests to public addresses only, so that no webhook reaches what only this machine or its network may reach."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address, ip_network

import httpcore

from registry.errors import InvalidInputError

_GLOBAL_UNICAST = ip_network("2000::/3")  # all that IANA has assigned; excludes NAT64, which leads to IPv4 addresses


def is_public(address: str) -> bool:
    """Tell whether an IP address is none of a private, local, shared, reserved or multicast network."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        elif parsed not in _GLOBAL_UNICAST or parsed.sixtofour:
            return False
    return parsed.is_global and not parsed.is_multicast


def resolve_public(host: str) -> list[str]:
    """Return the addresses of a host; raises InvalidInputError if it has none, or one that is not public."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"The host {host} has no address") from error
    addresses = [str(address[0]) for *_, address in found]
    if not all(is_public(address) for address in addresses):
        raise InvalidInputError(
            f"The host {host} has a private address: CONTRACT_FEEDBACK_WEBHOOK_PRIVATE_ADDRESSES=true allows that"
        )
    return addresses


class PublicBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that it has checked: a name that is resolved again could lead elsewhere by then.

    TLS and the Host header are not concerned: both keep the name.
    """

    def __init__(self, resolve: Callable[[str], list[str]] = resolve_public) -> None:
        self._resolve, self._backend = resolve, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers; raises InvalidInputError as `resolve_public` does."""
        *others, last = await asyncio.to_thread(self._resolve, host)
        for address in others:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(last, port, timeout, local_address, socket_options)
