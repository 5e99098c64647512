"""A whole installation on one machine: Prefect, MLflow, a worker and the API, as child processes."""

import json
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from cli.authentication import keep_secret, require_password
from cli.environment import PACKAGED, build_environment
from cli.supervision import Supervisor
from flows.warm.client import SOCKET_VARIABLE
from registry.database import migrate_database, open_session
from registry.keys import Scope, add_key, find_key
from registry.settings import Settings

_START_SECONDS = 300
_ALLOWED_HOSTS = "CONTRACT_FEEDBACK_ALLOWED_HOSTS"

Ports = tuple[int, int, int]
DEFAULT_PORTS = (8000, 4200, 5000)
ANY_PORTS = (0, 0, 0)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Stack:
    """The addresses of a running installation, an API key with all scopes, and its processes."""

    api_url: str
    prefect_url: str
    mlflow_url: str
    api_key: str
    folder: Path
    environment: dict[str, str]
    processes: Supervisor


@contextmanager
def run_stack(
    folder: Path,
    ports: Ports = DEFAULT_PORTS,
    encoder: str = PACKAGED,
    host: str = LOOPBACK,
    database_url: str | None = None,
) -> Iterator[Stack]:
    """Run the API, Prefect and MLflow on `ports` (0 is any free one) with their data in `folder`, until the block ends.

    The database is SQLite in `folder` unless `database_url` is given. On a `host` other than 127.0.0.1, Prefect and
    MLflow require the password in `folder`. SIGTERM raises KeyboardInterrupt, as Ctrl-C does. Raises RuntimeError if a
    port is taken or a process does not start.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = folder.resolve()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # contracts are in it
    database_url = database_url or f"sqlite:///{folder}/contract-feedback.db"
    with ExitStack() as opened:
        reserved = [opened.enter_context(reserve_port(host, port)) for port in ports]
        api_url, prefect_url, mlflow_url = (f"http://{host}:{each.getsockname()[1]}" for each in reserved)
        environment = build_environment(folder, api_url, prefect_url, mlflow_url, encoder, database_url)
        if host != LOOPBACK:
            environment |= require_password(folder)
            names = {host, *json.loads(environment.get(_ALLOWED_HOSTS, "[]"))}
            environment[_ALLOWED_HOSTS] = json.dumps(sorted(names))
        # Not in `folder`: the path of a Unix socket has at most 107 bytes.
        warm_socket = Path(opened.enter_context(TemporaryDirectory(prefix="contract-feedback-"))) / "warm"
        environment[SOCKET_VARIABLE] = str(warm_socket)
        processes = Supervisor(folder, environment, folder / "logs")
        opened.callback(processes.stop)
        key = _get_local_key(folder, database_url)
        stack = Stack(api_url, prefect_url, mlflow_url, key, folder, environment, processes)
        _start(stack, warm_socket)
        yield stack


def _start(stack: Stack, warm_socket: Path) -> None:
    """Start all processes and return when each of them answers."""
    from prefect.settings import temporary_settings  # noqa: PLC0415  (the docstring of cli.command_line says why)

    from cli.deployment import crash_unfinished_runs, deploy  # noqa: PLC0415

    processes, environment = stack.processes, stack.environment
    processes.start("prefect", "cli.prefect_server", *_listen_on(stack.prefect_url))
    processes.start("mlflow", *_build_mlflow_command(stack))
    processes.start("runs", "flows.warm.parent")
    processes.wait("prefect", answers(f"{stack.prefect_url}/api/health"), _START_SECONDS)
    server = {"api.url": environment["PREFECT_API_URL"], "api.auth_string": environment.get("PREFECT_API_AUTH_STRING")}
    try:
        with temporary_settings(server):
            deploy()
            crash_unfinished_runs()
    except httpx.HTTPError as error:
        raise RuntimeError(f"Prefect at {stack.prefect_url} refuses the deployment: {error}") from error
    processes.start("worker", "flows.warm.worker")
    processes.start("api", "cli.command_line", "api", *_listen_on(stack.api_url))
    processes.wait("mlflow", answers(f"{stack.mlflow_url}/health"), _START_SECONDS)
    processes.wait("api", answers(f"{stack.api_url}/health"), _START_SECONDS)
    processes.wait("runs", warm_socket.exists, math.inf)  # it may have to download its encoder
    processes.restart_exited()


def _build_mlflow_command(stack: Stack) -> list[str]:
    address = urlsplit(stack.mlflow_url)
    command = ["mlflow", "server", *_listen_on(stack.mlflow_url), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{stack.folder}/mlflow.db"]
    command += ["--artifacts-destination", f"{stack.folder}/mlflow"]
    hosts = [address.netloc]
    if address.hostname == LOOPBACK:
        hosts.append(f"localhost:{address.port}")  # MLflow's default also allows names such as 10.example.com
    else:
        command += ["--app-name", "basic-auth"]
    return [*command, "--allowed-hosts", ",".join(hosts)]


def _listen_on(url: str) -> tuple[str, ...]:
    """Return the options by which each of the three servers listens on the address of a URL."""
    address = urlsplit(url)
    return "--host", str(address.hostname), "--port", str(address.port)


def _get_local_key(folder: Path, database_url: str) -> str:
    """Return the API key in the file `api-key` of the folder; make one if the database does not know it."""
    settings = Settings(database_url=SecretStr(database_url))
    migrate_database(settings)
    file = folder / "api-key"
    with open_session(settings) as session:
        if file.exists() and find_key(session, file.read_text()):
            return file.read_text()
        file.unlink(missing_ok=True)
        return keep_secret(file, add_key(session, "local", list(Scope)))


def answers(url: str) -> Callable[[], bool]:
    """Return a function that checks whether a GET of `url` succeeds now."""

    def is_success() -> bool:
        try:
            return httpx.get(url, timeout=2).is_success
        except httpx.HTTPError:
            return False

    return is_success


def reserve_port(host: str, port: int) -> socket.socket:
    """Bind a port, any free one for 0, and keep it reserved until the returned socket is closed.

    The socket does not listen: a server that sets SO_REUSEADDR, as asyncio's and uvicorn's do, can listen on the port
    meanwhile, but Linux gives it to no other socket that asks for any port. Raises RuntimeError if the port is taken.
    """
    reserved = socket.socket()
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((host, port))
    except OSError as error:
        reserved.close()
        raise RuntimeError(
            f"Port {port} of {host} is not available: stop the process that listens there, or choose another port"
        ) from error
    return reserved
