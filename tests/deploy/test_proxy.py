"""Caddy with the Caddyfile, on this machine's ports, in front of servers that stand for the two APIs and the others."""

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from cli.installation import LOOPBACK, reserve_port
from tests.deploy.deployment_files import DEPLOY, read_compose
from tests.faults import wait_until

CADDYFILE = DEPLOY / "Caddyfile"
ADDRESSES = ("API_1", "API_2", "PREFECT", "MLFLOW")
NAMES = ("localhost", "prefect.localhost", "mlflow.localhost")
LIMIT_SECONDS = 1  # of a slow body; 30 seconds in the file

CADDY = Path(sys.executable).with_name("caddy")


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    may_end, was_cut_off = Event(), Event()

    def do_GET(self) -> None:
        if self.path != "/events":
            self._answer(f"{self.connection.getsockname()[1]} {self.headers['X-Forwarded-For']}".encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        self.may_end.wait(30)
        self.wfile.write(b"data: last\n\n")
        self.close_connection = True

    def do_POST(self) -> None:
        announced = int(self.headers["Content-Length"])
        received = len(self.rfile.read(announced))
        if received < announced:
            self.was_cut_off.set()
        else:
            self._answer(str(received).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Proxy:
    port: int
    authority: ssl.SSLContext
    upstreams: dict[str, ThreadingHTTPServer]

    def open_client(self) -> httpx.Client:
        return httpx.Client(base_url=f"https://localhost:{self.port}", verify=self.authority, timeout=10)

    def find_port(self, name: str) -> int:
        return self.upstreams[name].server_port


@contextmanager
def run_upstream() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer((LOOPBACK, 0), Upstream) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def adapt(environment: dict[str, str]) -> Any:
    done = subprocess.run(
        [CADDY, "adapt", "--config", CADDYFILE], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.replace(str(30 * 10**9), str(LIMIT_SECONDS * 10**9)))


def has_certificate(port: int, root: Path, name: str) -> bool:
    context = ssl.create_default_context(cafile=str(root))
    with suppress(OSError), socket.create_connection((LOOPBACK, port)) as plain:
        context.wrap_socket(plain, server_hostname=name).close()
        return True
    return False


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Run Caddy on a free port, with the limit of a slow body shortened."""
    folder = tmp_path_factory.mktemp("caddy")
    with ExitStack() as opened:
        upstreams = {name: opened.enter_context(run_upstream()) for name in ADDRESSES}
        reserved = reserve_port(LOOPBACK, 0)
        port = reserved.getsockname()[1]
        reserved.close()  # Go's servers do not listen on a reserved port
        environment = dict(os.environ) | {"DOMAIN": "localhost", "TLS": "internal", "XDG_DATA_HOME": str(folder)}
        environment |= {name: f"{LOOPBACK}:{each.server_port}" for name, each in upstreams.items()}
        adapted = adapt(environment)
        server = adapted["apps"]["http"]["servers"]["srv0"]
        server["listen"] = [f"{LOOPBACK}:{port}"]
        server["automatic_https"] = {"disable_redirects": True}
        adapted["apps"]["http"]["https_port"] = port
        (folder / "caddy.json").write_text(json.dumps(adapted | {"admin": {"disabled": True}}))
        caddy = subprocess.Popen(
            [CADDY, "run", "--config", folder / "caddy.json"], env=environment, stderr=(folder / "log").open("w")
        )
        opened.callback(caddy.wait)
        opened.callback(caddy.terminate)
        root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        wait_until(lambda: root.exists() and all(has_certificate(port, root, name) for name in NAMES), 30)
        yield Proxy(port, ssl.create_default_context(cafile=str(root)), upstreams)


def test_the_version_is_the_one_that_compose_runs() -> None:
    version = subprocess.run([CADDY, "version"], capture_output=True, text=True, check=True).stdout.split()[0]
    assert read_compose()["services"]["proxy"]["image"] == f"caddy:{version.removeprefix('v')}-alpine"


def test_the_file_is_formatted() -> None:
    formatted = subprocess.run([CADDY, "fmt", CADDYFILE], capture_output=True, text=True, check=False).stdout
    assert formatted == CADDYFILE.read_text()


@pytest.mark.parametrize("tls", ["internal", "operator@example.com", "/certificates/cert.pem /certificates/key.pem"])
def test_the_variables_of_compose_make_a_configuration(tls: str) -> None:
    variables = read_compose()["services"]["proxy"]["environment"] | {"DOMAIN": "contracts.example.com", "TLS": tls}
    (server,) = adapt(os.environ | variables)["apps"]["http"]["servers"].values()
    hosts = {host for route in server["routes"] for host in route["match"][0]["host"]}
    assert hosts == {"contracts.example.com", "prefect.contracts.example.com", "mlflow.contracts.example.com"}
    assert 0 < server["read_header_timeout"] < server["idle_timeout"]


def test_both_apis_answer_and_know_the_address_of_the_client(proxy: Proxy) -> None:
    with proxy.open_client() as client:
        answers = {client.get("/documents", headers={"X-Forwarded-For": "192.0.2.1"}).text for _ in range(40)}
    assert answers == {f"{proxy.find_port(name)} {LOOPBACK}" for name in ("API_1", "API_2")}


def test_the_pages_of_prefect_and_mlflow_have_names_of_their_own(proxy: Proxy) -> None:
    for name in ("PREFECT", "MLFLOW"):
        host = f"{name.lower()}.localhost"
        with proxy.open_client() as client:
            answer = client.get("/", headers={"Host": host}, extensions={"sni_hostname": host})
        assert answer.text.startswith(str(proxy.find_port(name)))


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/%6detrics", "/x/../metrics", "/metrics?a=1"])
def test_metrics_are_not_passed_on(proxy: Proxy, path: str) -> None:
    with proxy.open_client() as client:
        assert client.get(path).status_code == 404


def test_an_event_arrives_before_the_stream_ends_and_a_stream_may_outlast_a_slow_body(proxy: Proxy) -> None:
    Upstream.may_end.clear()
    with proxy.open_client() as client, client.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: first"
        time.sleep(LIMIT_SECONDS + 0.3)
        Upstream.may_end.set()
        assert "data: last" in lines


def test_a_body_up_to_the_limit_is_passed_on_and_a_larger_one_is_not(proxy: Proxy) -> None:
    with proxy.open_client() as client:
        assert client.post("/documents", content=bytes(51_000_000)).text == "51000000"
        assert client.post("/documents", content=bytes(51_000_001)).status_code == 413


def test_who_sends_too_much_takes_no_api_from_others(proxy: Proxy) -> None:
    with proxy.open_client() as client:
        for _ in range(4):
            assert client.post("/documents", content=bytes(51_000_001)).status_code == 413
        started = time.monotonic()
        answers = {client.get("/documents").text.split()[0] for _ in range(20)}
    assert answers == {str(proxy.find_port(name)) for name in ("API_1", "API_2")}
    assert time.monotonic() - started < 4  # not the five seconds that a failure would count


def test_a_slow_body_does_not_hold_an_api(proxy: Proxy) -> None:
    Upstream.was_cut_off.clear()
    with (
        socket.create_connection((LOOPBACK, proxy.port)) as plain,
        proxy.authority.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"POST /documents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
        assert Upstream.was_cut_off.wait(LIMIT_SECONDS + 5)


def test_the_other_api_answers_when_one_is_gone(proxy: Proxy) -> None:
    proxy.upstreams["API_1"].shutdown()
    proxy.upstreams["API_1"].server_close()
    with proxy.open_client() as client:
        answers = [client.post("/documents", content=b"abc") for _ in range(20)]
    assert {answer.text for answer in answers} == {"3"}
