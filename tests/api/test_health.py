"""`/ready` and `/metrics` while the database is away, hangs, or has another schema; a real PostgreSQL is stopped."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from registry.database import open_session
from registry.keys import Scope, add_key, revoke_key
from registry.settings import Settings
from tests.api.conftest import Start
from tests.postgresql import PostgreSQL, create_database, find_programs, run_postgresql
from tests.running_api import RunningApi

AWAY = "The database does not answer; try again when GET /system-status shows it alive"


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgreSQL]:
    """A server that tests may stop."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with run_postgresql(programs) as server:
        yield server


@pytest.fixture(scope="module")
def database_url(own_server: PostgreSQL) -> str:
    return create_database(own_server)


def list_processes(server: PostgreSQL) -> list[int]:
    """Return the server's process and its children."""
    parent = Path(server.folder, "data/postmaster.pid").read_text().split()[0]
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in (parent, *children)]


@contextmanager
def hang(server: PostgreSQL) -> Iterator[None]:
    stopped = list_processes(server)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def add_scraper(settings: Settings) -> str:
    with open_session(settings) as session:
        return add_key(session, "prometheus", [Scope.METRICS])


def ask_ready(api: RunningApi) -> tuple[int, str]:
    answer = httpx.get(f"{api.url}/ready", timeout=20)
    return answer.status_code, answer.json().get("detail", "")


def test_api_is_ready_without_prefect_until_its_database_goes_away(api: RunningApi, own_server: PostgreSQL) -> None:
    assert ask_ready(api) == (200, "")
    own_server.crash()
    time.sleep(1.1)
    assert ask_ready(api) == (503, AWAY)
    own_server.start()
    time.sleep(1.1)
    assert ask_ready(api) == (200, "")


@pytest.mark.slow
def test_database_that_hangs_holds_up_no_readiness_and_no_scrape(api: RunningApi, own_server: PostgreSQL) -> None:
    key = add_scraper(api.settings)
    with api.connect(key) as scraper, api.connect() as reader, ThreadPoolExecutor(60) as pool:
        assert scraper.get("/metrics").status_code == 200
        time.sleep(1.1)
        with hang(own_server):
            others = [pool.submit(reader.get, "/documents") for _ in range(50)]
            time.sleep(0.2)
            started = time.monotonic()
            assert [each[0] for each in pool.map(lambda _: ask_ready(api), range(9))] == [503] * 9
            scrape = scraper.get("/metrics")
            seconds = time.monotonic() - started
        assert {each.result().status_code for each in others} <= {200, 503}
    assert seconds < 8, "a scrape and a check together"
    assert scrape.status_code == 200
    assert 'contract_feedback_neighbour_up{neighbour="database"} 0.0' in scrape.text
    assert "contract_feedback_jobs" not in scrape.text


def test_scrape_without_the_database_needs_a_key_that_was_valid_when_it_came_last(
    api: RunningApi, own_server: PostgreSQL
) -> None:
    known, revoked, new = (add_scraper(api.settings) for _ in range(3))
    with api.connect() as client:

        def scrape(key: str) -> int:
            return client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code

        assert [scrape(known), scrape(revoked)] == [200, 200]
        with open_session(api.settings) as session:
            revoke_key(session, revoked.split("_")[1])
        assert scrape(revoked) == 401
        own_server.crash()
        time.sleep(1.1)
        assert [scrape(key) for key in (known, revoked, new, api.key, "unknown")] == [200, 503, 503, 503, 503]
        own_server.start()
        time.sleep(1.1)
        assert [scrape(known), scrape(new), scrape("unknown")] == [200, 200, 401]


def test_api_is_ready_on_a_later_schema_and_not_on_an_earlier_one(start: Start, engine: Engine) -> None:
    client: TestClient = start()
    answers = []
    for revision in ("9999", "0017"):
        with engine.begin() as connection:
            before = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
        time.sleep(1.1)
        answers.append(client.get("/ready"))
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": before})
    assert [answer.status_code for answer in answers] == [200, 503]
    assert "run `contract-feedback migrate`" in answers[1].json()["detail"]
