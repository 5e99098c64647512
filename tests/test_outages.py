"""Servers are killed, the database is locked, the disk is full: no feedback that was answered 202 is lost."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from cli.installation import LOOPBACK, answers, reserve_port
from demo.client import ContractReviewer, ReviewedDocument
from tests.faults import BreakableInstallation, start_again, wait_until

pytestmark = pytest.mark.slow


def test_full_artifact_disk_leaves_the_champion_and_the_feedback_is_learned_once_there_is_space(
    breakable: BreakableInstallation,
) -> None:
    champion = breakable.find_champion()
    with closing(sqlite3.connect(breakable.folder / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")  # what is written to it goes to a small file first
    smaller_than_a_model = min(file.stat().st_size for file in breakable.folder.glob("mlflow/**/*.safetensors")) - 1
    log = breakable.folder / "logs/mlflow.log"
    os.truncate(log, 0)  # or the limit would end it, too
    with breakable.limit_file_size("mlflow", smaller_than_a_model):
        job_id = breakable.feed_back()
        # A file of the model, or the database, whichever is full first.
        wait_until(lambda: any(problem in log.read_text() for problem in ("File too large", "disk I/O error")))
        assert breakable.reviewer.read_job(job_id)["outcome"] is None
        assert breakable.find_champion() == champion
    breakable.check_learned(job_id)


def test_api_killed_between_commit_and_response_has_stored_the_feedback_and_a_retry_returns_its_job(
    breakable: BreakableInstallation,
) -> None:
    document, before = breakable.upload(), breakable.count_jobs()
    path, body = f"/documents/{document.id}/feedback", {"annotations": document.annotations}
    headers = httpx.Headers({**breakable.http.headers, "Idempotency-Key": "again"})
    command = [sys.executable, str(Path(__file__).parent / "api/probes/dying_api.py")]
    with reserve_port(LOOPBACK, 0) as reserved:
        port = str(reserved.getsockname()[1])
        dying = subprocess.Popen([*command, port], cwd=breakable.folder, env=breakable.stack.environment)
        wait_until(answers(f"http://127.0.0.1:{port}/health"))
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{port}{path}", json=body, headers=headers)
        assert dying.wait(10) == -signal.SIGKILL
    job_id = breakable.http.post(path, json=body, headers=headers).raise_for_status().json()["job_id"]
    breakable.accepted.append(job_id)
    assert breakable.count_jobs() == before + 1
    breakable.check_learned(job_id)


def test_prefect_killed_for_a_minute_while_feedback_comes_in_loses_none(breakable: BreakableInstallation) -> None:
    server = breakable.kill_after("flows.feedback.fine_tune", "prefect", kills_itself=False)
    jobs = [breakable.feed_back()]
    server.wait(120)
    died = time.monotonic()
    while time.monotonic() < died + 60:
        jobs.append(breakable.feed_back())
        time.sleep(6)
    start_again(breakable.stack, "prefect")
    breakable.check_learned(*jobs)


def test_mlflow_down_at_registration_for_longer_than_the_run_retries_loses_nothing(
    breakable: BreakableInstallation,
) -> None:
    server = breakable.kill_after("flows.feedback.evaluate", "mlflow", kills_itself=False)
    job_id = breakable.feed_back()
    server.wait(120)
    time.sleep(40)
    start_again(breakable.stack, "mlflow")
    breakable.check_learned(job_id)


def test_feedback_is_refused_while_the_database_is_locked_and_accepted_afterwards(
    breakable: BreakableInstallation,
) -> None:
    document, before = breakable.upload(), breakable.count_jobs()
    with closing(sqlite3.connect(breakable.folder / "contract-feedback.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        refused = breakable.http.post(f"/documents/{document.id}/feedback", json={"annotations": document.annotations})
        database.execute("ROLLBACK")
    assert refused.status_code == 503
    assert "try again" in refused.json()["detail"]
    assert breakable.count_jobs() == before
    breakable.check_learned(breakable.feed_back(document))


def test_200_feedbacks_from_32_clients_at_once_are_all_answered(breakable: BreakableInstallation) -> None:
    documents = [breakable.upload() for _ in range(40)]

    def feed_back(document: ReviewedDocument) -> list[str]:
        client = ContractReviewer(breakable.stack.api_url, breakable.stack.api_key)
        return [client.feed_back(replace(document, spans=document.spans[left_out:])) for left_out in range(5)]

    with ThreadPoolExecutor(32) as pool:
        jobs = [job for some in pool.map(feed_back, documents) for job in some]
    breakable.accepted += jobs
    assert len(set(jobs)) == 200
    breakable.check_learned(*jobs)


def test_every_accepted_feedback_has_an_outcome_at_the_end(breakable: BreakableInstallation) -> None:
    breakable.check_nothing_is_lost()
