"""What a version was made from, and which versions learned an annotation, as clients see it; MLflow is a file."""

import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from sqlmodel import Session, select

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult, fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.training_config import TrainingConfig
from feedback.claiming import answer_jobs
from feedback.time_limits import utc_now
from registry.jobs import get_job
from registry.lessons import take_lessons
from registry.lineage import Lineage, TaughtSpan, get_code_version
from registry.models import ModelRegistry
from registry.outcome import Decision, ModelScores, Outcome
from registry.settings import Settings
from registry.tables import Job
from tests.api.conftest import Start
from tests.api.test_limits import mark, upload


@pytest.fixture(scope="module")
def tuned(contracts: list[AnnotationData], tiny_encoder: Encoder) -> FineTuningResult:
    return fine_tune_model(contracts[:2], encoder=tiny_encoder, config=TrainingConfig(seed=7))


def feed_back(client: TestClient, document: str, *annotations: object) -> str:
    answer = client.post(f"/documents/{document}/feedback", json={"annotations": annotations})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def learn(session: Session, settings: Settings, tuned: FineTuningResult, lineage: Lineage, *jobs: str) -> str:
    """Do what a run does, but for the training: read the jobs, store, register and promote a version, and answer."""
    registry = ModelRegistry(settings)
    take_lessons(session, jobs, "run")
    run_id, champion = registry.save_challenger("run", tuned, lineage), registry.find_alias()
    scores = [ModelScores(version=version, score=1.0, held_out={}) for version in (None, champion)]
    made = Outcome(
        decision=Decision.PROMOTED, reason="because", flow_run_id="run", decided_at=utc_now(), challenger=scores[0],
        champion=scores[1] if champion else None,
    )  # fmt: skip
    version = registry.register(run_id, made)
    registry.promote(version)
    made.challenger = scores[0].model_copy(update={"version": version})
    answer_jobs(session, jobs, made)
    session.commit()
    return version


def test_version_shows_annotations_with_revision_and_reviewer_and_all_else_it_was_made_from(
    start: Start, session: Session, settings: Settings, tuned: FineTuningResult
) -> None:
    client = start()
    first, second = upload(client), upload(client, "Acme Ltd pays Bell again.")
    one, two = feed_back(client, first, mark("Bell", reviewer="rui")), feed_back(client, second, mark("Acme Ltd"))
    sources = Lineage(training={second: two, first: one}, replay={}, earlier_count=3, parent_version=None)
    version = learn(session, settings, tuned, sources, one, two)
    (bell,) = client.get(f"/documents/{first}/annotations").json()
    client.put(f"/annotations/{bell['id']}", json=mark("Bell", "payee"))
    lineage = client.get(f"/models/{version}").json()["lineage"]
    assert list(lineage["training"]) == [second, first], "In the order of the training"
    taught = {"id": bell["id"], "type": "party", "start": 14, "end": 18, "revision": 1, "reviewer": "rui"}
    assert lineage["training"][first] == [taught]
    assert (lineage["earlier_count"], lineage["code_version"]) == (3, get_code_version())
    assert lineage["config"]["seed"] == 7
    page = client.get(f"/models/{version}", params={"offset": 1, "limit": 1}).json()["lineage"]
    assert (list(page["training"]), page["training_total"]) == ([first], 2)
    client.delete(f"/documents/{second}")
    assert list(client.get(f"/models/{version}").json()["lineage"]["training"]) == [first]


def test_lineage_of_an_earlier_release_is_shown(
    start: Start, settings: Settings, session: Session, tuned: FineTuningResult
) -> None:
    earlier = Lineage(training={"a": [TaughtSpan(type="party", start=0, end=4)]}, replay={"b": []})
    lineage = start().get(f"/models/{learn(session, settings, tuned, earlier)}").json()["lineage"]
    span = {"id": None, "type": "party", "start": 0, "end": 4, "revision": None, "reviewer": None}
    assert (lineage["training"], lineage["replay"]) == ({"a": [span]}, {"b": []})


def test_annotation_shows_the_versions_that_learned_it_though_it_is_deleted(
    start: Start, session: Session, settings: Settings, tuned: FineTuningResult
) -> None:
    client = start()
    document = upload(client)
    job_id = feed_back(client, document, mark("Bell", reviewer="rui"))
    (bell,) = client.get(f"/documents/{document}/annotations").json()
    address = f"/annotations/{bell['id']}/versions"
    assert client.get(address).json() == {"live_since": None, "versions": []}
    lineage = Lineage(training={document: job_id}, replay={})
    version = learn(session, settings, tuned, lineage, job_id)
    client.delete(f"/annotations/{bell['id']}")
    answer = client.get(address).json()
    job = session.exec(select(Job)).one()
    assert job.outcome
    assert job.outcome.decided_at
    (found,) = answer["versions"]
    learned_at = found.pop("learned_at")
    assert found == {
        "version": version, "revision": 1, "reviewer": "rui", "job_id": job_id, "decision": "promoted", "is_live": True,
    }  # fmt: skip
    assert answer["live_since"] == learned_at == job.outcome.decided_at.isoformat().replace("+00:00", "Z")
    client.delete(f"/documents/{document}")
    assert client.get(address).status_code == 410
    assert client.get("/annotations/unknown/versions").status_code == 404


def test_list_of_versions_links_the_run_that_made_each_and_its_jobs(
    start: Start, session: Session, settings: Settings, tuned: FineTuningResult
) -> None:
    client = start()
    job_id = feed_back(client, upload(client), mark("Bell"))
    get_job(session, job_id).claiming_run_id = "run"
    learn(session, settings, tuned, Lineage(training={}, replay={}), job_id)
    (version,) = client.get("/models").json()["items"]
    assert (version["decision"], version["training_documents"], version["job_ids"]) == ("promoted", 0, [job_id])
    assert version["prefect_run"].endswith("/runs/flow-run/run")
    assert version["promoted_at"] > version["created_at"]
    assert client.get(f"/models/{version['version']}").json().items() >= version.items()


def test_version_of_an_earlier_release_has_no_links(
    start: Start, session: Session, settings: Settings, tuned: FineTuningResult
) -> None:
    client, mlflow = start(), MlflowClient(settings.mlflow_tracking_uri)
    made = learn(session, settings, tuned, Lineage(training={}, replay={}))
    for tag in ("flow_run_id", "training_documents"):
        mlflow.delete_model_version_tag(settings.model_name, made, tag)
    (version,) = client.get("/models").json()["items"]
    assert (version["prefect_run"], version["training_documents"], version["job_ids"]) == (None, None, [])
