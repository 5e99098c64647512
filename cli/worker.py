"""A worker as one unit: the warm parent and the Prefect worker, supervised, with a health check."""

import logging
import math
import os
import signal
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from cli.environment import write_one_certificate
from cli.supervision import Supervisor
from flows.warm.client import SOCKET_VARIABLE, STATUS_VARIABLE
from registry.database import open_session
from registry.errors import ContractFeedbackError, NewerSchemaError, explain_outage
from registry.settings import get_settings

PARENT, WORKER = ("runs", "flows.warm.parent"), ("worker", "flows.warm.worker")
_POLL_SECONDS = 2.0
_SILENCE_SECONDS = 90
_logger = logging.getLogger(__name__)


def run_worker(host: str, port: int) -> None:
    """Run a worker until SIGTERM or Ctrl-C; its health is at `http://host:port/health`.

    It waits for a database that has not been migrated yet, or does not answer. Raises NewerSchemaError if a later
    release has migrated it, RuntimeError if the port is taken or a process does not start.
    """
    with TemporaryDirectory(prefix="contract-feedback-") as folder:
        unit = _Unit(Path(folder))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, unit.stop)
        try:
            health = ThreadingHTTPServer((host, port), _build_handler(unit))
        except OSError as error:
            raise RuntimeError(f"The health check cannot listen on {host}:{port}: {error}") from error
        threading.Thread(target=health.serve_forever, name="health", daemon=True).start()
        try:
            unit.run()
        except KeyboardInterrupt:
            _logger.info("Stopping …")
        finally:
            unit.processes.stop()


class _Unit:
    """Both processes; their socket and the worker's status are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._socket, self._status = folder / "warm", folder / "status"
        addresses = {SOCKET_VARIABLE: str(self._socket), STATUS_VARIABLE: str(self._status)}
        if os.environ["PREFECT_API_URL"].startswith("http://"):
            addresses["PREFECT_API_SSL_CERT_FILE"] = str(write_one_certificate(folder))
        self.processes = Supervisor(Path.cwd(), addresses | os.environ)
        self._reason, self._is_stopping = "", False  # why it takes no runs

    def run(self) -> None:
        """Start both when the database is migrated, and restart them until `stop` raises KeyboardInterrupt."""
        self._wait_for_database()
        self.processes.start(*PARENT)
        self.processes.wait(PARENT[0], self._socket.exists, math.inf)  # it may have to download its encoder
        self.processes.start(*WORKER)
        self.processes.wait(WORKER[0], self._status.exists, math.inf)
        self.processes.restart_exited()
        while True:
            signal.pause()

    def stop(self, _: int, __: FrameType | None) -> None:
        """Raise KeyboardInterrupt at the first signal; at the next, have the worker end at once."""
        if not self._is_stopping:
            self._is_stopping, self._reason = True, "The worker is being stopped and takes no more runs"
            raise KeyboardInterrupt
        if self.processes.runs(WORKER[0]):
            self.processes[WORKER[0]].terminate()

    def find_problem(self) -> str:
        """Return why runs do not start within a second here, in one sentence; nothing if they do."""
        if self._reason:
            return self._reason
        if not self._accepts():
            return "The warm parent has not loaded its encoder yet"
        if not self.processes.runs(WORKER[0]):
            return "The Prefect worker is not running; it is restarted within seconds"
        if not self._status.exists():
            return "The worker has not asked Prefect for runs yet"
        if time.time() - self._status.stat().st_mtime > _SILENCE_SECONDS:
            return f"The worker has not asked Prefect for runs for {_SILENCE_SECONDS} seconds"
        return self._status.read_text()

    def _wait_for_database(self) -> None:
        while True:
            try:
                with open_session(get_settings()):  # it checks the schema
                    self._reason = ""
                    return
            except NewerSchemaError:
                raise
            except ContractFeedbackError as error:
                if self._reason != str(error):
                    self._reason = str(error)
                    _logger.warning("The worker waits: %s", explain_outage(error))
            time.sleep(_POLL_SECONDS)

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            try:
                client.connect(str(self._socket))
            except OSError:
                return False
            return True


def _build_handler(unit: _Unit) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET /health: 200 if runs start within a second, else 503 with the reason."""

        def do_GET(self) -> None:
            if self.path != "/health":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            problem = unit.find_problem()
            body = (problem or "ok").encode()
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a health check is asked every few seconds."""

    return Handler
