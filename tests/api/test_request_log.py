"""The API in a process of its own, without Prefect and MLflow: its log, and the ids of its requests."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from cli.installation import LOOPBACK, answers, reserve_port
from registry.database import open_session
from registry.jobs import add_job
from registry.keys import Scope, add_key
from registry.settings import Settings
from registry.tables import JobType
from tests.faults import wait_until

pytestmark = pytest.mark.slow

PROBE = Path(__file__).parent / "probes" / "logging_api.py"


class LoggingApi:
    """A client of the API, and the API's log."""

    def __init__(self, http: httpx.Client, key: str, job_id: str, log: Path) -> None:
        self.http, self.key, self.job_id, self._log = http, key, job_id, log

    def read_lines(self, is_wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return the wanted lines, as soon as there are some."""
        found = list[dict[str, Any]]()

        def read() -> bool:
            found[:] = filter(is_wanted, map(json.loads, self._log.read_text().splitlines()))
            return bool(found)

        wait_until(read, 10)
        return found

    def read_lines_of(self, request_id: str) -> list[dict[str, Any]]:
        return self.read_lines(lambda line: line.get("request_id") == request_id)

    def read_text(self) -> str:
        return self._log.read_text()


@contextmanager
def run_logging_api(migrated_file: Path, folder: Path, **variables: str) -> Iterator[LoggingApi]:
    database_url = f"sqlite:///{shutil.copy(migrated_file, folder / 'test.db')}"
    with open_session(Settings(database_url=SecretStr(database_url))) as session:
        key, job_id = add_key(session, "ana", list(Scope)), add_job(session, JobType.FEEDBACK, [], "ana").id
    environment = {
        **os.environ,
        "CONTRACT_FEEDBACK_DATABASE_URL": database_url,
        "CONTRACT_FEEDBACK_MAX_JSON_BYTES": "1000",
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # as the command sets it
        **variables,
    }
    with reserve_port(LOOPBACK, 0) as reserved, (folder / "log").open("w") as log:
        port = reserved.getsockname()[1]
        process = subprocess.Popen([sys.executable, PROBE, str(port)], cwd=folder, env=environment, stderr=log)
        url = f"http://{LOOPBACK}:{port}"
        try:
            wait_until(answers(f"{url}/health"))
            new_connections = httpx.Limits(max_keepalive_connections=0)  # after a bug, the server closes the connection
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.Client(base_url=url, headers=headers, limits=new_connections) as http:
                yield LoggingApi(http, key, job_id, folder / "log")
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def api(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggingApi]:
    variables = {"CONTRACT_FEEDBACK_LOG_FORMAT": "json", "CONTRACT_FEEDBACK_LOG_LEVEL": "DEBUG"}
    with run_logging_api(migrated_file, tmp_path_factory.mktemp("api"), **variables) as api:
        yield api


@pytest.mark.parametrize(
    ("status", "method", "path", "options"),
    [
        (200, "GET", "/key", {}),
        (401, "GET", "/key", {"Authorization": "Bearer cf_wrong"}),
        (403, "GET", "/key", {"Host": "example.com"}),
        (404, "GET", "/documents/nowhere", {}),
        (413, "POST", "/training-runs", {"Content-Length": "1001"}),
        (422, "GET", "/jobs", {}),
        (500, "GET", "/bug", {}),
    ],
)
def test_every_answer_has_the_request_id_and_every_request_a_line(
    api: LoggingApi, status: int, method: str, path: str, options: dict[str, str]
) -> None:
    headers, request_id = {**options, "X-Request-ID": f"request/{status}"}, f"request/{status}"
    content = b"1" * int(options.get("Content-Length", 0))
    answer = api.http.request(method, path, params={"limit": "of-this-contract"}, headers=headers, content=content)
    assert (answer.status_code, answer.headers.get_list("X-Request-ID")) == (status, [request_id])
    (line,) = api.read_lines(lambda line: line.get("request_id") == request_id and "status" in line)
    assert (line["method"], line["path"], line["status"]) == (method, path, status)
    assert (line["bytes"], line["client"]) == (len(answer.content), LOOPBACK)
    assert line["milliseconds"] > 0
    assert line.get("key_name") == (None if status in {401, 403, 500} else "ana")
    assert not any(secret in api.read_text() for secret in (api.key, "cf_wrong", "of-this-contract"))


def test_id_that_is_too_long_or_unusual_is_replaced(api: LoggingApi) -> None:
    for sent in (None, "", "two words", "a" * 129, "<script>"):
        headers = {} if sent is None else {"X-Request-ID": sent}
        given = api.http.get("/key", headers=headers).headers["X-Request-ID"]
        assert re.fullmatch("[0-9a-f]{32}", given)
        assert api.read_lines_of(given)


def test_bug_is_answered_with_the_request_under_which_the_log_has_the_trace(api: LoggingApi) -> None:
    answer = api.http.get("/bug")
    request_id = answer.headers["X-Request-ID"]
    assert answer.json()["detail"].endswith(f"the log of the API has the trace under request {request_id}")
    (trace,) = api.read_lines(lambda line: line.get("request_id") == request_id and "traceback" in line)
    assert trace["traceback"].endswith("ValueError: a bug\nin two lines")


def test_line_of_a_stream_comes_at_its_end(api: LoggingApi) -> None:
    with api.http.stream("GET", f"/jobs/{api.job_id}/events", headers={"X-Request-ID": "stream"}) as answer:
        assert answer.headers["X-Request-ID"] == "stream"
        lines = answer.iter_lines()
        next(lines)
        api.http.get("/key", headers={"X-Request-ID": "meanwhile"})
        api.read_lines_of("meanwhile")
        assert '"stream"' not in api.read_text()
    (line,) = api.read_lines_of("stream")
    assert (line["status"], line["key_name"]) == (200, "ana")
    assert line["bytes"] > 0


def test_probes_have_lines_only_at_the_level_debug(api: LoggingApi) -> None:
    lines = api.read_lines(lambda line: line.get("path") in {"/health", "/key"})
    assert {(line["path"], line["level"]) for line in lines} >= {("/health", "DEBUG"), ("/key", "INFO")}
    assert ("/health", "INFO") not in {(line["path"], line["level"]) for line in lines}


def test_path_cannot_forge_a_line_of_text(migrated_file: Path, tmp_path: Path) -> None:
    with run_logging_api(migrated_file, tmp_path) as api:
        api.http.get("/a%0A2026-01-01T00:00:00.000Z%20INFO%20api%20forged%1B[31m")
        wait_until(lambda: "forged" in api.read_text(), 10)
        assert "/health" not in api.read_text()
        (line,) = [line for line in api.read_text().splitlines() if "forged" in line]
        assert r"GET /a\n2026-01-01T00:00:00.000Z INFO api forged\x1b[31m from 127.0.0.1, no key: 404 in" in line
