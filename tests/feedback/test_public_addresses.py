import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpcore
import pytest

from feedback.public_addresses import PublicBackend, is_public, resolve_public
from registry.errors import InvalidInputError
from tests.receiver import Receiver, receive


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


@pytest.mark.parametrize("address", ["8.8.8.8", "193.136.128.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.1.2.3", "169.254.169.254", "172.16.0.1", "192.0.2.1",
        "192.168.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "100::1", "2001::1",
        "2001:db8::1", "2002:7f00:1::", "fc00::1", "fd00::1", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_any_other_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0", "127.1", "2130706433", "0x7f.1", "::1"])
def test_host_with_a_private_address_is_refused(host: str) -> None:
    with pytest.raises(InvalidInputError, match="has a private address"):
        resolve_public(host)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "a" * 64])
def test_host_without_an_address_is_refused(host: str) -> None:
    with pytest.raises(InvalidInputError, match="has no address"):
        resolve_public(host)


@pytest.mark.parametrize("addresses", [["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"]])
def test_host_with_one_private_address_among_others_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(InvalidInputError, match="has a private address"):
        resolve_public("two.invalid")


async def post(backend: PublicBackend, url: str, tls: ssl.SSLContext | None = None) -> int:
    async with httpcore.AsyncConnectionPool(tls, network_backend=backend) as pool:
        return (await pool.request("POST", url, content=b"{}")).status


def test_connection_goes_to_the_address_that_was_checked_and_the_request_names_the_host(receiver: Receiver) -> None:
    asked = []

    def resolve(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    url = receiver.url.replace("127.0.0.1", "rebound.invalid")
    assert asyncio.run(post(PublicBackend(resolve), url)) == 204
    assert asked == ["rebound.invalid"]
    assert receiver.headers[0]["Host"] == url.removeprefix("http://")


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
def test_first_address_that_answers_is_connected_to(receiver: Receiver, addresses: list[str]) -> None:
    backend = PublicBackend(lambda _: addresses)
    assert asyncio.run(post(backend, receiver.url.replace("127.0.0.1", "two.invalid"))) == 204


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_certificate_is_checked_against_the_name_and_not_the_address(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hooks.invalid"]
    make += ["-addext", "subjectAltName=DNS:hooks.invalid", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    trusted, backend = ssl.create_default_context(cafile=str(certificate)), PublicBackend(lambda _: ["127.0.0.1"])
    with receive(server) as receiver:
        url = receiver.url.replace("127.0.0.1", "hooks.invalid")
        assert asyncio.run(post(backend, url, trusted)) == 204
        with pytest.raises(httpcore.ConnectError, match="Hostname mismatch"):
            asyncio.run(post(backend, url.replace("hooks", "other"), trusted))
