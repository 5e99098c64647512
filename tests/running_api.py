"""A server of the API in this process, without Prefect and MLflow."""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from fastapi import FastAPI
from prefect.settings import PREFECT_API_URL, temporary_settings

from api.app import create_app
from api.server import Server
from feedback.claiming import answer_jobs
from registry.database import migrate_database, open_session
from registry.jobs import add_job
from registry.keys import Scope, add_key
from registry.outcome import Outcome
from registry.settings import Settings
from registry.tables import JobType
from tests.faults import wait_until
from tests.feedback.jobs import outcome


class RunningApi:
    """A running server, and a key that may do everything."""

    def __init__(self, settings: Settings, app: FastAPI, server: Server, thread: threading.Thread) -> None:
        self.settings, self.app, self.server, self.thread = settings, app, server, thread
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = self.add_key()

    def add_key(self) -> str:
        with open_session(self.settings) as session:
            return add_key(session, "ana", list(Scope))

    def add_job(self) -> str:
        with open_session(self.settings) as session:
            return add_job(session, JobType.FEEDBACK, [], "tester").id

    def answer(self, job_id: str, answer: Outcome | None = None) -> None:
        with open_session(self.settings) as session:
            answer_jobs(session, [job_id], answer or outcome())

    def connect(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, limits=httpx.Limits(max_connections=None))


@contextmanager
def run_api(settings: Settings, port: int = 0) -> Iterator[RunningApi]:
    migrate_database(settings)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        app = create_app(settings)
        server = Server(app, port=port, log_level="warning")
        thread = threading.Thread(target=contextvars.copy_context().run, args=(server.run,))
        thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    yield RunningApi(settings, app, server, thread)
    server.should_exit = True
    thread.join()
