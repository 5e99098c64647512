"""Everything a single machine needs, as processes of this one: Prefect, MLflow, a worker, the API."""

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import certifi
import httpx
from prefect.client.orchestration import SyncPrefectClient
from pydantic import SecretStr

from cli.authentication import keep_secret, require_password
from cli.supervision import Supervisor
from embeddinggemma_feasibility.encoders import PACKAGED
from feedback.automations import build_automations
from feedback.time_limits import TimeLimits
from flows.warm.client import SOCKET_VARIABLE
from registry.database import migrate_database, open_session
from registry.keys import Scope, add_key, find_key
from registry.settings import Settings

_START_SECONDS = 300

Ports = tuple[int, int, int]
DEFAULT_PORTS = (8000, 4200, 5000)
ANY_PORTS = (0, 0, 0)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Stack:
    """The addresses of a running installation, a key to it with all scopes, and its processes."""

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
    """Run the API, Prefect and MLflow on `ports` with their data in `folder`, until the block ends.

    The database is SQLite in `folder`, too, unless `database_url` names another. On another `host` than 127.0.0.1,
    Prefect and MLflow ask for the password in the folder. A SIGTERM ends the block as Ctrl-C does. Raises RuntimeError
    if a port is taken or a process does not come up.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = folder.resolve()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    api_url, prefect_url, mlflow_url = (f"http://{host}:{free_port(host, port)}" for port in ports)
    environment = os.environ | {
        "CONTRACT_FEEDBACK_DATABASE_URL": database_url or f"sqlite:///{folder}/contract-feedback.db",
        "CONTRACT_FEEDBACK_DOCUMENT_STORE_URL": str(folder / "documents"),
        "CONTRACT_FEEDBACK_CACHE_FOLDER": str(folder / "cache"),
        "CONTRACT_FEEDBACK_MLFLOW_TRACKING_URI": mlflow_url,
        "CONTRACT_FEEDBACK_ENCODER": str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"{prefect_url}/api",
        "PREFECT_API_SSL_CERT_FILE": str(_one_certificate(folder)),
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",  # each client would ask for a token that the server has not
        "PREFECT_UI_URL": prefect_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",  # 30 is how long a run waits behind another
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # automations.json
        "MALLOC_ARENA_MAX": "2",  # glibc's malloc keeps what is freed, in eight arenas a core
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait take the processor from the other processes
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",  # for prefect.yaml's command
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if encoder == PACKAGED or Path(encoder).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if host != LOOPBACK:
        environment |= require_password(folder)
    with ExitStack() as opened:
        # Not in the folder: the path of a socket may have no more than 107 bytes.
        warm_socket = Path(opened.enter_context(TemporaryDirectory(prefix="contract-feedback-"))) / "warm"
        environment[SOCKET_VARIABLE] = str(warm_socket)
        processes = Supervisor(folder, environment)
        opened.callback(processes.stop)

        prefect_port, mlflow_port, api_port = (url.rsplit(":", 1)[1] for url in (prefect_url, mlflow_url, api_url))
        processes.start("prefect", "prefect", "server", "start", "--host", host, "--port", prefect_port)
        store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/mlflow"]
        listen = ["--host", host, "--port", mlflow_port, "--workers", "1"]
        protect = ["--app-name", "basic-auth", "--allowed-hosts", f"{host}:{mlflow_port}"] if host != LOOPBACK else []
        processes.start("mlflow", "mlflow", "server", *listen, *protect, *store)
        processes.start("runs", "flows.warm.parent")
        key = _local_key(folder, environment["CONTRACT_FEEDBACK_DATABASE_URL"])
        processes.wait("prefect", answers(f"{prefect_url}/api/health"), _START_SECONDS)
        _deploy(environment)
        _automate(environment)
        processes.start("worker", "flows.warm.worker")
        processes.start("api", "cli.command_line", "api", "--host", host, "--port", api_port)
        processes.wait("mlflow", answers(f"{mlflow_url}/health"), _START_SECONDS)
        processes.wait("api", answers(f"{api_url}/health"), _START_SECONDS)
        # Without end: it may have to download its encoder first.
        processes.wait("runs", warm_socket.exists, math.inf)
        processes.keep_alive()
        yield Stack(api_url, prefect_url, mlflow_url, key, folder, environment, processes)


def _deploy(environment: dict[str, str]) -> None:
    """Send the deployment of `prefect.yaml` to the Prefect server, and its work pool if there is none."""
    project = Path(__file__).parent.parent
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for command in (
        ["work-pool", "create", "contract-feedback", "--type", "process", "--overwrite"],
        ["deploy", "--all"],
    ):
        done = subprocess.run(  # noqa: S603
            [*prefect, *command], cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"`prefect {' '.join(command)}` failed: {done.stdout}{done.stderr}")


def _automate(environment: dict[str, str]) -> None:
    """Send the automations to the Prefect server, in place of those that have their names."""
    with SyncPrefectClient(
        environment["PREFECT_API_URL"], auth_string=environment.get("PREFECT_API_AUTH_STRING")
    ) as prefect:
        for automation in build_automations(TimeLimits()):
            for earlier in prefect.read_automations_by_name(automation.name):
                prefect.delete_automation(earlier.id)
            prefect.create_automation(automation)


def _one_certificate(folder: Path) -> Path:
    """Keep one authority's certificate: each Prefect client loads its file, certifi's in 25 ms, for plain HTTP, too."""
    file, end = folder / "certificate.pem", "-----END CERTIFICATE-----\n"
    file.write_text(Path(certifi.where()).read_text().split(end)[0] + end)
    return file


def _local_key(folder: Path, database_url: str) -> str:
    """Return the key kept in the folder for the person at this machine, made with the database."""
    settings = Settings(database_url=SecretStr(database_url))
    migrate_database(settings)
    file = folder / "api-key"
    with open_session(settings) as session:
        if file.exists() and find_key(session, file.read_text()):
            return file.read_text()
        file.unlink(missing_ok=True)
        return keep_secret(file, add_key(session, "local", list(Scope)))


def answers(url: str) -> Callable[[], bool]:
    """Return what tells whether an address answers now, and well."""

    def is_success() -> bool:
        try:
            return httpx.get(url, timeout=2).is_success
        except httpx.HTTPError:
            return False

    return is_success


def free_port(host: str, port: int) -> int:
    """Return the port of an address, any for 0; raises RuntimeError if something listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RuntimeError(
                f"Port {port} of {host} cannot be had: stop what listens there, or choose another"
            ) from error
        return int(probe.getsockname()[1])
