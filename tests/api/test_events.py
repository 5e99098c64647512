"""Jobs as server-sent events, from a server in this process without Prefect and MLflow, or from the stack."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlmodel import delete

from cli.installation import Stack
from demo.client import ContractReviewer
from feedback.claiming import answer_jobs, store_launched_run
from registry.database import open_session
from registry.keys import Scope, add_key, revoke_key
from registry.tables import Job
from tests.api.test_jobs import count_statements
from tests.faults import wait_until
from tests.feedback.jobs import outcome
from tests.running_api import RunningApi
from tests.test_whole_loop import upload

Event = tuple[str, dict[str, Any]]


@pytest.fixture
def http(api: RunningApi) -> Iterator[httpx.Client]:
    with api.connect() as client:
        yield client


def read_events(answer: httpx.Response) -> Iterator[Event]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@contextmanager
def follow(http: httpx.Client, job_id: str) -> Iterator[Iterator[Event]]:
    with http.stream("GET", f"/jobs/{job_id}/events") as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield read_events(answer)


@contextmanager
def follow_all(http: httpx.Client, job_ids: Sequence[str]) -> Iterator[list[Iterator[Event]]]:
    with ExitStack() as opened:
        streams = [opened.enter_context(follow(http, job_id)) for job_id in job_ids]
        for events in streams:
            assert next(events)[1]["status"] == "pending"
        yield streams


def test_job_is_followed_from_its_state_now_to_its_answer(api: RunningApi, http: httpx.Client) -> None:
    job_id = api.add_job()
    with follow(http, job_id) as events:
        assert next(events) == ("job", http.get(f"/jobs/{job_id}").json())
        with open_session(api.settings) as session:
            store_launched_run(session, job_id, 0, str(uuid4()))
        name, launched = next(events)
        assert (name, launched["message"][:23]) == ("job", "Prefect does not answer")
        api.answer(job_id)
        assert next(events) == ("job", http.get(f"/jobs/{job_id}").json())
        assert list(events) == [("end", {"reason": "answered"})]
    with follow(http, job_id) as events:
        assert [name for name, _ in events] == ["job", "end"], "A client that connects again is told at once"


def test_unknown_job_and_key_without_the_scope_are_refused_as_elsewhere(api: RunningApi, http: httpx.Client) -> None:
    assert http.get("/jobs/unknown/events").status_code == 404
    assert http.get("/jobs/unknown/events", headers={"Authorization": "Bearer cf_a_b"}).status_code == 401
    with open_session(api.settings) as session:
        trainer = add_key(session, "rui", [Scope.TRAIN])
    assert http.get("/jobs/unknown/events", headers={"Authorization": f"Bearer {trainer}"}).status_code == 403


def test_many_streams_of_a_key_hold_up_none_of_its_requests(api: RunningApi, http: httpx.Client) -> None:
    job_id = api.add_job()
    with follow_all(http, [job_id] * 60) as streams:
        started = time.monotonic()
        assert http.get(f"/jobs/{job_id}").status_code == 200
        assert time.monotonic() - started < 1
        api.answer(job_id)
        assert [[name for name, _ in events] for events in streams] == [["job", "end"]] * 60


def test_streams_above_the_limits_are_refused_until_others_are_closed(api: RunningApi, http: httpx.Client) -> None:
    job_id = api.add_job()
    limit = api.app.state.services.stream_limit
    limit._most_of_key, limit._most = 2, 3
    with api.connect(api.add_key()) as other, follow(other, job_id):
        with follow_all(http, [job_id] * 2):
            refused = http.get(f"/jobs/{job_id}/events")
            assert (refused.status_code, "2 streams of events are open with this key" in refused.text) == (429, True)
            assert other.get(f"/jobs/{job_id}/events").json()["detail"].startswith("3 streams of events are open, and")
            assert http.get(f"/jobs/{job_id}").status_code == 200
        wait_until(lambda: not limit._open.keys() - {next(iter(limit._open))}, 5)
        with follow(http, job_id) as events:
            assert next(events)[0] == "job"


def test_stream_of_a_revoked_key_ends(api: RunningApi) -> None:
    revoked, job_id = api.add_key(), api.add_job()
    with api.connect(revoked) as client, follow(client, job_id) as events, api.connect() as other:
        next(events)
        with follow(other, job_id) as others, open_session(api.settings) as session:
            next(others)
            revoke_key(session, revoked.split("_")[1])
            session.commit()
            assert list(events) == [("end", {"reason": "revoked"})]
            api.answer(job_id)
            assert [name for name, _ in others] == ["job", "end"]


def test_stream_of_a_deleted_job_ends(api: RunningApi, http: httpx.Client) -> None:
    job_id = api.add_job()
    with follow(http, job_id) as events:
        next(events)
        with open_session(api.settings) as session:
            session.exec(delete(Job))
        assert list(events) == [("end", {"reason": "deleted"})]


def test_open_streams_do_not_delay_the_end_of_the_server(api: RunningApi, http: httpx.Client) -> None:
    with follow_all(http, [api.add_job()] * 3) as streams:
        started = time.monotonic()
        api.server.should_exit = True
        assert [list(events) for events in streams] == [[], [], []], "The clients connect again"
        api.thread.join(5)
        assert not api.thread.is_alive()
        assert time.monotonic() - started < 2


def test_hundred_streams_ask_the_database_a_few_times_a_second_and_hear_of_an_answer_soon(
    api: RunningApi, http: httpx.Client
) -> None:
    jobs = [api.add_job() for _ in range(10)]
    with follow_all(http, jobs * 10) as streams, ThreadPoolExecutor(100) as pool:
        with count_statements() as statements:
            time.sleep(3)
        ours = [
            each for each in statements if "workspace" not in each and not each.startswith("PRAGMA")
        ]  # MLflow's store is in this process, too
        assert len(ours) <= 3 * 8 + 4, ours  # four of the launcher, once in 15 s
        heard = [pool.submit(lambda events=events: (next(events), time.monotonic())) for events in streams]  # type: ignore[misc]
        time.sleep(0.5)
        with open_session(api.settings) as session:
            answer_jobs(session, jobs, outcome())
        stored = time.monotonic()
        delays = [each.result()[1] - stored for each in heard]
    assert max(delays) < 1, delays


def test_job_of_a_run_is_pushed_from_waiting_to_live(stack: Stack, client: ContractReviewer) -> None:
    job_id = client.feed_back(upload(client, 310))
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    with httpx.Client(base_url=stack.api_url, headers=headers, timeout=60) as http, follow(http, job_id) as events:
        (*states, (name, end)) = events
        assert (name, end) == ("end", {"reason": "answered"})
        details = [detail for _, detail in states]
        statuses = [detail["status"] for detail in details]
        assert statuses == sorted(statuses, key=["pending", "running", "completed"].index)
        assert set(statuses) == {"pending", "running", "completed"}
        progress = [detail["progress"] for detail in details]
        assert progress == sorted(progress)
        assert any(0 < each < 100 for each in progress), progress
        assert details[-1] == http.get(f"/jobs/{job_id}").json()
