"""The whole loop over real sockets: API, Prefect server and worker, MLflow, the packaged encoder."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.states import Scheduled

from cli.installation import Stack
from demo.client import ContractReviewer, ReviewedDocument
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import Span
from embeddinggemma_feasibility.evaluation import normalise_value
from tests.faults import wait_until


@pytest.fixture(scope="module")
def http(stack: Stack) -> httpx.Client:
    return httpx.Client(base_url=stack.api_url, headers={"Authorization": f"Bearer {stack.api_key}"}, timeout=60)


def upload(client: ContractReviewer, seed: int) -> ReviewedDocument:
    contract = generate_contract(seed)
    return client.upload(contract.filename, contract.pdf, contract.text, contract.spans)


@pytest.fixture(scope="module")
def corrected(client: ContractReviewer) -> ReviewedDocument:
    return upload(client, 0)


@pytest.fixture(scope="module")
def first_job(client: ContractReviewer, corrected: ReviewedDocument) -> dict[str, Any]:
    return client.wait_for_job(client.feed_back(corrected))


def test_feedback_answers_202_with_a_job_that_ends_in_a_promoted_version(
    http: httpx.Client, first_job: dict[str, Any]
) -> None:
    assert first_job["status"] == "completed", first_job["message"]
    assert first_job["progress"] == 100
    assert first_job["outcome"]["decision"] == "promoted"
    assert first_job["links"]["prefect_run"].startswith("http://127.0.0.1")
    assert first_job["links"]["mlflow_run"].startswith("http://127.0.0.1")
    version = first_job["outcome"]["challenger"]["version"]
    model = http.get(f"/models/{version}").json()
    assert model["mlflow_run_id"] == first_job["outcome"]["mlflow_run_id"]
    assert set(model["lineage"]["training"]) >= set(first_job["document_ids"])


def test_next_extraction_is_made_by_the_new_version_and_reproduces_the_correction(
    client: ContractReviewer, http: httpx.Client, corrected: ReviewedDocument, first_job: dict[str, Any]
) -> None:
    version, entities = client.extract(corrected.id)
    assert version is not None
    assert version >= first_job["outcome"]["challenger"]["version"]
    found = {(entity.type, normalise_value(entity.value)) for entity in entities}
    gold = {(span.type, normalise_value(corrected.text[span.start : span.end])) for span in corrected.spans}
    assert len(found & gold) / len(found | gold) > 0.7
    answer = http.get(f"/documents/{corrected.id}/entities").json()["entities"]
    assert all(entity["value"] == corrected.text[entity["start"] : entity["end"]] for entity in answer)
    assert all(entity["location"][0]["page"] == 1 and 0 < entity["confidence"] <= 1 for entity in answer)


def test_burst_with_an_invented_type_is_learned_and_every_job_is_answered(
    client: ContractReviewer, http: httpx.Client, corrected: ReviewedDocument, first_job: dict[str, Any]
) -> None:
    second = upload(client, 200)
    start = second.text.index("\n") + 1
    invented = ReviewedDocument(second.id, second.text, (*second.spans, Span(start, start + 5, "cláusula/nova")))
    jobs = [client.wait_for_job(job) for job in (client.feed_back(corrected), client.feed_back(invented))]
    assert [job["status"] for job in jobs] == ["completed", "completed"]
    outcome = jobs[1]["outcome"]
    assert outcome["decision"] == "promoted"
    version = outcome["challenger"]["version"]
    types = {
        span["type"]
        for spans in http.get(f"/models/{version}").json()["lineage"]["training"].values()
        for span in spans
    }
    assert "cláusula/nova" in types


def test_promoting_an_older_version_serves_it_from_the_next_extraction_on(
    client: ContractReviewer, http: httpx.Client, corrected: ReviewedDocument, first_job: dict[str, Any]
) -> None:
    served = client.extract(corrected.id)[0]
    assert http.post("/models/1/promote").json()["is_champion"]
    assert client.extract(corrected.id)[0] == "1"
    http.post(f"/models/{served}/promote")
    back, forth = http.get("/audit", params={"limit": 50}).json()["items"], {"champion": "1"}
    promotions = [entry for entry in back if entry["action"] == "promoted"]
    assert [(entry["principal"], entry["entity_id"], entry["before"]) for entry in promotions] == [
        ("local", served, forth), ("local", "1", {"champion": served}),
    ]  # fmt: skip
    assert client.extract(corrected.id)[0] == served


def test_version_that_cannot_be_loaded_is_not_promoted(
    stack: Stack, client: ContractReviewer, http: httpx.Client, corrected: ReviewedDocument, first_job: dict[str, Any]
) -> None:
    served = client.extract(corrected.id)[0]
    broken = first_job["outcome"]["challenger"]["version"]
    (model,) = stack.folder.glob(f"mlflow/*/{first_job['outcome']['mlflow_run_id']}/artifacts/model")
    hidden = model.rename(model.with_name("hidden"))
    shutil.rmtree(stack.folder / "cache" / "models")
    answer = http.post(f"/models/{broken}/promote")
    hidden.rename(model)
    assert answer.status_code == 503
    assert f"Version {broken} cannot be loaded" in answer.json()["detail"]
    assert client.extract(corrected.id)[0] == served
    assert http.get("/system-status").json()["served_version"] == served


@pytest.mark.slow
def test_mlflow_that_hangs_holds_up_no_request_but_the_first(
    stack: Stack, http: httpx.Client, corrected: ReviewedDocument, first_job: dict[str, Any]
) -> None:
    entities = f"/documents/{corrected.id}/entities"
    before = http.get(entities).json()
    mlflow = stack.processes["mlflow"].pid
    os.killpg(mlflow, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(50) as pool:
            waiting = [pool.submit(http.get, entities) for _ in range(50)]
            time.sleep(1)
            assert time_of(lambda: http.get("/health")) < 1
            answers = [each.result().json() for each in waiting]
        assert {answer["model_version"] for answer in answers} == {before["model_version"]}
        assert all("MLflow does not answer" in answer["warning"] for answer in answers)
        assert time_of(lambda: http.get(entities)) < 2
        assert time_of(lambda: http.get("/jobs").raise_for_status()) < 7
        assert not http.get("/system-status").json()["model"]["ok"]
    finally:
        os.killpg(mlflow, signal.SIGCONT)
    wait_until(lambda: http.get(entities).json()["warning"] is None, 20)


def test_data_is_readable_by_its_owner_alone_and_the_api_may_open_many_connections(stack: Stack) -> None:
    assert stack.folder.stat().st_mode & 0o777 == 0o700
    limits = Path(f"/proc/{stack.processes['api'].pid}/limits").read_text()
    (open_files,) = (line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    assert open_files[0] == open_files[1]


def time_of(request: Callable[[], object]) -> float:
    started = time.monotonic()
    request()
    return time.monotonic() - started


@pytest.mark.slow
def test_run_again_in_prefect_neither_trains_nor_registers_twice(
    stack: Stack, http: httpx.Client, first_job: dict[str, Any]
) -> None:
    run_id = first_job["outcome"]["flow_run_id"]
    mlflow = MlflowClient(stack.mlflow_url)
    runs = len(mlflow.search_runs(["1"], "tags.trained = 'yes'"))
    versions = len(http.get("/models", params={"limit": 200}).json()["items"])
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        prefect.set_flow_run_state(run_id, Scheduled(), force=True)
        wait_until(lambda: (state := prefect.read_flow_run(run_id).state) is not None and state.is_final())
        assert prefect.read_flow_run(run_id).state_name == "Completed"
    assert len(mlflow.search_runs(["1"], "tags.trained = 'yes'")) == runs
    assert len(http.get("/models", params={"limit": 200}).json()["items"]) == versions


def test_versions_are_listed_in_pages_newest_first(http: httpx.Client, first_job: dict[str, Any]) -> None:
    whole = http.get("/models", params={"limit": 200}).json()
    versions = [int(item["version"]) for item in whole["items"]]
    assert versions == sorted(versions, reverse=True)
    assert len(versions) > 1
    assert whole["next_before"] is None
    found: list[dict[str, Any]] = []
    before: dict[str, str | None] = {}
    while before.get("before", "") is not None:
        page = http.get("/models", params={"limit": 1, **before}).json()
        found += page["items"]
        before = {"before": page["next_before"]}
    assert found == whole["items"]


def test_training_run_on_chosen_documents_ends_in_a_version(
    client: ContractReviewer, http: httpx.Client, corrected: ReviewedDocument, first_job: dict[str, Any]
) -> None:
    answer = http.post("/training-runs", json={"document_ids": [corrected.id], "triggered_by": "ana"})
    assert answer.status_code == 202
    job = client.wait_for_job(answer.json()["job_id"])
    assert job["outcome"]["training_documents"] == [corrected.id]
    assert http.get("/training-runs").json()["items"][0]["triggered_by"] == "ana"


def test_run_says_what_came_of_it_and_leaves_a_report_with_scores_and_links(
    stack: Stack, corrected: ReviewedDocument, first_job: dict[str, Any]
) -> None:
    run_id, version = first_job["outcome"]["flow_run_id"], first_job["outcome"]["challenger"]["version"]
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        wait_until(lambda: prefect.read_flow_run(run_id).name == f"v{version} promoted: 1 document")
        of_run = ArtifactFilter(
            key=ArtifactFilterKey(any_=["report"]), flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run_id)])
        )
        report = str(prefect.read_artifacts(artifact_filter=of_run)[0].data)
    assert "| corrections reproduced |" in report
    links = {
        f"{stack.api_url}/#/documents/{corrected.id}",
        f"{stack.api_url}/jobs/{first_job['job_id']}",
        first_job["links"]["mlflow_run"],
    }
    assert set(re.findall(r"\]\((http[^)]+)\)", report)) >= links


def test_contract_text_and_keys_are_in_no_log_parameter_artifact_or_tag(
    stack: Stack, corrected: ReviewedDocument, first_job: dict[str, Any]
) -> None:
    values = {corrected.text[span.start : span.end] for span in corrected.spans}
    secrets = {stack.api_key, *(value for value in values if len(value) > 8)}
    assert len(secrets) > 3
    shown = [log.read_text() for log in (stack.folder / "logs").iterdir()]
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        for found in (prefect.read_flow_runs(), prefect.read_artifacts(), prefect.read_logs()):
            assert found
            shown += [item.model_dump_json() for item in found]
    runs = MlflowClient(stack.mlflow_url).search_runs(["1"])
    assert runs
    shown += [json.dumps(run.to_dictionary()) for run in runs]
    assert {secret for secret in secrets if any(secret in text for text in shown)} == set()
