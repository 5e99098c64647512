"""The logs of a whole installation as JSON: one follows a correction from its request to its answer."""

import json
import re
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

from cli.installation import Stack
from demo.client import ContractReviewer
from tests.faults import connect_to_prefect, wait_until
from tests.test_loop_on_postgresql import upload

pytestmark = pytest.mark.slow

Line = dict[str, Any]


class Logs:
    """What an installation logs from now on."""

    def __init__(self, stack: Stack) -> None:
        self._files = {name: stack.folder / "logs" / f"{name}.log" for name in ("api", "runs", "worker")}
        self._sizes = {name: file.stat().st_size for name, file in self._files.items()}

    def read(self, name: str) -> list[Line]:
        text = self._files[name].read_bytes()[self._sizes[name] :].decode()
        return [json.loads(line) for line in text.splitlines()]

    def read_run(self, run_id: str) -> list[Line]:
        """Return the lines of a run, without those of the worker, as soon as it has ended."""
        lines = list[Line]()

        def has_ended() -> bool:
            of_run = (line for line in self.read("worker") if line.get("flow_run_id") == run_id)
            lines[:] = (line for line in of_run if line["logger"] != "prefect.flow_runs.worker")
            return any(line["message"].startswith("Finished in state") for line in lines)

        wait_until(has_ended)
        return lines


@pytest.fixture(scope="module")
def client(elsewhere: Stack) -> ContractReviewer:
    return ContractReviewer(elsewhere.api_url, elsewhere.api_key)


def test_correction_is_followed_from_its_request_through_its_run_to_its_answer(
    elsewhere: Stack, client: ContractReviewer
) -> None:
    document, logs = upload(client, 320), Logs(elsewhere)
    headers = {"Authorization": f"Bearer {elsewhere.api_key}", "X-Request-ID": "follow-me"}
    url = f"{elsewhere.api_url}/documents/{document.id}/feedback"
    job_id = httpx.post(url, json={"annotations": document.annotations}, headers=headers).json()["job_id"]
    run_id = client.wait_for_job(job_id)["outcome"]["flow_run_id"]

    of_request = [line for line in logs.read("api") if line.get("request_id") == "follow-me"]
    assert [line.get("job_id") for line in of_request] == [job_id, None]
    assert of_request[1]["status"] == 202
    (launched,) = (
        line for line in logs.read("api") if line["message"].startswith("Launched") and line["job_id"] == job_id
    )
    assert launched["flow_run_id"] == run_id
    claimed = next(line for line in logs.read_run(run_id) if line["message"].startswith("Claimed 1 job;"))
    assert claimed["job_id"] == job_id
    assert all(line["job_id"] == job_id for line in logs.read_run(run_id) if line["time"] >= claimed["time"])


def test_log_of_a_run_in_prefect_tells_it_in_numbers(elsewhere: Stack, client: ContractReviewer) -> None:
    run_id = client.wait_for_job(client.feed_back(upload(client, 321)))["outcome"]["flow_run_id"]
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run_id)]))

    def read(prefect: SyncPrefectClient) -> str:
        return "\n".join(log.message for log in prefect.read_logs(log_filter=of_run, limit=200))

    with connect_to_prefect(elsewhere) as prefect:
        wait_until(lambda: "Finished in state" in read(prefect))
        log = read(prefect)
    for told in (
        r"^Claimed 1 job; 1 document to learn, with [1-9]\d* annotations; of \d+ earlier ones \d+ to replay",
        r"^Trained in \d+\.\d s: \d+ steps on \d+ samples",
        r"^(Value F1 \d\.\d{3} against \d\.\d{3}|No scores to compare): promoted as v\d+; 1 job answered$",
    ):
        assert re.search(told, log, re.MULTILINE), log
    assert "Completed()" not in log


def test_consolidation_which_starts_cold_logs_in_the_same_format(elsewhere: Stack, client: ContractReviewer) -> None:
    client.wait_for_job(client.feed_back(upload(client, 322)))
    logs = Logs(elsewhere)
    with connect_to_prefect(elsewhere) as prefect:
        deployment = prefect.read_deployment_by_name("consolidate/consolidation")
        run_id = str(prefect.create_flow_run_from_deployment(deployment.id).id)
    messages = [line["message"] for line in logs.read_run(run_id)]
    assert any(re.match(r"\d+ documents? learned up to job \d+, \d+ annotations$", each) for each in messages), messages
    assert any(each.startswith("Trained in ") for each in messages)
    (handed_over,) = (line for line in logs.read_run(run_id) if line["message"].startswith("Handed over in job "))
    assert handed_over["job_id"] in handed_over["message"]
    assert "Finished in state Completed()" not in messages
