import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import Metrics, RequestMetrics
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from feedback.claiming import answer_jobs
from registry.database import open_session
from registry.jobs import add_job
from registry.keys import Scope, add_key
from registry.models import ModelRegistry
from registry.settings import Settings
from registry.tables import JobType
from tests.api.conftest import Start
from tests.api.test_encoding import upload, wait_for_encoded
from tests.feedback.jobs import outcome
from tests.registry.test_models import register
from tests.running_api import RunningApi

PROMTOOL = shutil.which("promtool")
REQUESTS = "contract_feedback_http_requests_total"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def read_samples(client: httpx.Client | TestClient) -> dict[tuple[str, ...], float]:
    """Return the values by the metric's name and its labels' values in the order of the labels' names."""
    text = client.get("/metrics").raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(each.name, *(value for _, value in sorted(each.labels.items()))): each.value for each in samples}


def test_requests_are_counted_by_routes_and_methods_that_exist(api: RunningApi) -> None:
    with api.connect() as client:
        for name in ("a-secret-id", "another-id"):
            client.get(f"/documents/{name}")
            client.get(f"/{name}")
            client.request(name.upper(), "/documents")
        samples = read_samples(client)
        text = client.get("/metrics").text
    assert samples[REQUESTS, "GET", "/documents/{document_id}", "404"] == 2
    assert samples[REQUESTS, "GET", "none", "404"] == 2
    assert samples[REQUESTS, "other", "/documents", "405"] == 2
    assert "secret" not in text.lower()


def test_unexpected_error_counts_as_500_and_is_raised() -> None:
    metrics, app = Metrics(), FastAPI()
    app.add_middleware(RequestMetrics, metrics=metrics)

    @app.get("/broken/{number}")
    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        TestClient(app).get("/broken/1")
    labels = {"method": "GET", "route": "/broken/{number}", "status": "500"}
    assert metrics.registry.get_sample_value(REQUESTS, labels) == 1


def test_stream_is_counted_as_it_begins_and_while_it_is_open(api: RunningApi) -> None:
    route = "/jobs/{job_id}/events"
    with api.connect() as client:
        with client.stream("GET", f"/jobs/{api.add_job()}/events") as answer:
            lines = answer.iter_lines()  # kept: it closes the stream when it is collected
            next(lines)
            samples = read_samples(client)
        assert samples[REQUESTS, "GET", route, "200"] == 1
        assert samples["contract_feedback_http_request_duration_seconds_sum", "GET", route] < 5
        assert samples["contract_feedback_event_streams",] == 1


def test_scraper_reads_metrics_alone_and_a_reader_does_not(start: Start, settings: Settings) -> None:
    client = start()
    with open_session(settings) as session:
        keys = {scope: add_key(session, scope, [scope]) for scope in Scope}
    allowed = {
        scope: client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        for scope, key in keys.items()
    }
    assert {scope for scope, may in allowed.items() if may} == {Scope.METRICS, Scope.ADMIN}
    scraper = {"Authorization": f"Bearer {keys[Scope.METRICS]}"}
    assert client.get("/documents", headers=scraper).status_code == 403
    assert client.get("/metrics", headers={"Authorization": ""}).status_code == 401


def test_jobs_are_shown_with_their_time_to_serve(start: Start, settings: Settings) -> None:
    client = start()
    with open_session(settings) as session:
        job, _ = (add_job(session, JobType.FEEDBACK, [], "tester") for _ in range(2))
        answer_jobs(session, [job.id], outcome())
    samples = read_samples(client)
    assert samples["contract_feedback_jobs", "promoted", "feedback"] == 1
    assert samples["contract_feedback_jobs", "failed", "feedback"] == 0
    assert samples["contract_feedback_waiting_jobs", "feedback"] == 1
    assert 0 < samples["contract_feedback_oldest_waiting_job_age_seconds",] < 60
    served = "contract_feedback_feedback_to_served_seconds"
    assert [samples[f"{served}_bucket", bound] for bound in ("60.0", "+Inf")] == [1, 1]
    assert samples[f"{served}_count",] == 1
    assert 0 <= samples[f"{served}_sum",] < 60
    assert samples["contract_feedback_neighbour_up", "database"] == 1
    assert samples["contract_feedback_neighbour_up", "prefect"] == 0
    assert ("contract_feedback_workers_online",) not in samples


def test_extractions_are_timed_by_whether_the_text_was_encoded(
    start: Start, settings: Settings, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    registry = ModelRegistry(settings)
    version = register(registry, tuned, contracts, "run")
    registry.promote(version)
    client = start()
    document = upload(client, "The party is Acme Corporation.")
    wait_for_encoded(settings)
    shutil.rmtree(Path(settings.cache_folder) / "representations")
    for _ in range(3):
        client.get(f"/documents/{document}/entities").raise_for_status()
    samples = read_samples(client)
    counts = [samples["contract_feedback_extraction_duration_seconds_count", each] for each in ("new", "known")]
    assert counts == [1, 2]
    served = [samples[f"contract_feedback_{each}_version",] for each in ("served", "champion")]
    assert served == [float(version)] * 2


@pytest.mark.skipif(PROMTOOL is None, reason="Prometheus is not installed: apt-get install prometheus")
def test_names_and_types_are_those_of_prometheus_conventions(api: RunningApi) -> None:
    with api.connect() as client:
        text = client.get("/metrics").text
        open_metrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    checked = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")
