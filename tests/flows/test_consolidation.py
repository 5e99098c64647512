"""Consolidation and its hand-over in this process, with a real Prefect server and an MLflow store for each test."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from mlflow import MlflowClient
from prefect.artifacts import Artifact
from sqlmodel import Session, select

from cli.installation import Stack
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from feedback.consolidation import Candidate, FeedbackFirst
from feedback.rollback import follow_promotion
from flows import consolidation
from flows.artifacts import Progress
from flows.consolidation import Learned, consolidate
from flows.feedback import LearningRequest, learn_from_feedback
from registry.jobs import get_job
from registry.models import ModelRegistry
from registry.outcome import Decision, Outcome
from registry.settings import Settings
from registry.tables import Job, JobDocument, JobType
from tests.flows.test_feedback import add_feedback
from tests.flows.test_stream import swap_labels

pytestmark = pytest.mark.usefixtures("flow_environment")
RUN_ID = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def run_job(session: Session, job_id: str) -> Outcome:
    session.commit()
    state = learn_from_feedback(LearningRequest(job_id=job_id), return_state=True)
    assert state.is_completed(), state.message
    session.expire_all()
    outcome = get_job(session, job_id).outcome
    assert outcome
    return outcome


def learn(session: Session, seed: int) -> str:
    """Feed back a generated contract and learn from it; return the document's id."""
    job_id = add_feedback(session, seed)
    assert run_job(session, job_id).decision == Decision.PROMOTED
    return session.exec(select(JobDocument.document_id).where(JobDocument.job_id == job_id)).one()


def fit_and_save(learned: Learned) -> Candidate:
    fitted = consolidation.fit.fn(learned, None, FeedbackFirst(lambda: False), Progress())
    return consolidation.save_candidate.fn(RUN_ID, learned, None, fitted)


def list_consolidations(session: Session) -> list[Job]:
    session.rollback()
    return list(session.exec(select(Job).where(Job.type == JobType.CONSOLIDATION)))


@pytest.mark.slow
def test_consolidation_of_everything_learned_is_handed_over_to_a_run_that_promotes_it(
    session: Session, settings: Settings
) -> None:
    documents = [learn(session, seed) for seed in (1, 2)]
    state = consolidate(return_state=True)
    [job] = list_consolidations(session)
    assert state.message
    assert state.message.startswith("Consolidation: fitted from nothing on 2 documents with 6 types in ")
    assert (job.note, job.candidate_snapshot) == (state.message.split(" Job ")[0], 2)
    outcome = run_job(session, job.id)
    assert (outcome.decision, outcome.training_documents) == (Decision.PROMOTED, [])
    assert outcome.reason.endswith(str(job.note))
    assert outcome.mlflow_run_id == job.candidate_run_id
    registry = ModelRegistry(settings)
    assert registry.find_champion() == "3"
    assert list(registry.get_lineage("3").training) == documents
    assert registry.get_version("3").parent_version is None


@pytest.mark.slow
def test_feedback_learned_during_a_consolidation_is_in_what_it_promotes(session: Session, settings: Settings) -> None:
    earlier = learn(session, 1)
    learned = consolidation.load_learned.fn(RUN_ID)
    meanwhile = learn(session, 2)
    candidate = fit_and_save(learned)
    outcome = run_job(session, consolidation.hand_over.fn(RUN_ID, candidate))
    assert (outcome.decision, outcome.training_documents) == (Decision.PROMOTED, [meanwhile])
    assert outcome.reason.endswith("It then learned 1 document learned meanwhile.")
    assert [data.document_id for data in learned.documents] == [earlier]
    version = ModelRegistry(settings).get_version("3")
    assert (version.is_champion, version.parent_version) == (True, None)


@pytest.mark.slow
def test_job_that_waits_during_the_snapshot_is_in_what_is_promoted_though_a_later_one_was_answered(
    session: Session,
) -> None:
    learn(session, 1)
    waiting = add_feedback(session, 2)
    get_job(session, waiting).claiming_run_id = "another run"
    session.commit()
    later = learn(session, 3)
    candidate = fit_and_save(consolidation.load_learned.fn(RUN_ID))
    get_job(session, waiting).claiming_run_id = None
    [document_id] = run_job(session, waiting).training_documents
    outcome = run_job(session, consolidation.hand_over.fn(RUN_ID, candidate))
    assert set(outcome.training_documents) == {document_id, later}


@pytest.mark.slow
def test_refused_consolidation_leaves_the_champion(session: Session, settings: Settings) -> None:
    jobs = [add_feedback(session, seed) for seed in range(8)]
    assert run_job(session, jobs[0]).decision == Decision.PROMOTED
    learned = consolidation.load_learned.fn(RUN_ID)
    wrong = [replace(data, spans=(Span(0, 5, "party"),)) for data in learned.documents]
    candidate = fit_and_save(replace(learned, documents=wrong))
    outcome = run_job(session, consolidation.hand_over.fn(RUN_ID, candidate))
    assert outcome.decision == Decision.NOT_PROMOTED
    assert outcome.reason.startswith("Not promoted: ")
    assert candidate.description in outcome.reason
    assert ModelRegistry(settings).find_champion() == "1"


@pytest.mark.slow
def test_consolidation_of_what_was_rolled_back_meanwhile_is_not_promoted(session: Session, settings: Settings) -> None:
    for seed in (1, 2):
        learn(session, seed)
    candidate = fit_and_save(consolidation.load_learned.fn(RUN_ID))
    follow_promotion(session, "1", "ana")
    session.commit()
    ModelRegistry(settings).promote("1")
    handed_over = run_job(session, consolidation.hand_over.fn(RUN_ID, candidate))
    assert handed_over.decision == Decision.NOT_PROMOTED
    assert "it learned what was set aside or withdrawn since" in handed_over.reason
    assert ModelRegistry(settings).find_champion() == "1"


@pytest.mark.slow
def test_swapped_labels_of_one_document_are_published_as_contradictions(session: Session, stack: Stack) -> None:
    generated = [generate_contract(seed) for seed in range(24)]
    documents = [AnnotationData(str(number), each.text, each.spans) for number, each in enumerate(generated)]
    documents[5] = replace(documents[5], spans=swap_labels(documents[5].spans))
    fitted = consolidation.fit.fn(Learned(24, documents, {}), None, FeedbackFirst(lambda: False), Progress())
    consolidation.report_contradictions.fn(consolidation.list_contradictions.fn(Learned(24, documents, {}), fitted))
    artifact = cast("Artifact", Artifact.get("contradictions"))
    rows = json.loads(str(artifact.data))
    assert {row["document"] for row in rows} == {"5"}
    assert all(row["found as"] != row["marked as"] != "nothing" for row in rows), rows
    assert f"{len(rows)} annotations in 1 document contradict what was learned from others" in str(artifact.description)


@pytest.mark.slow
def test_consolidation_retried_after_its_model_was_saved_hands_that_over_once(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(session, 1)
    candidate = fit_and_save(consolidation.load_learned.fn(RUN_ID))
    learn(session, 2)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", RUN_ID)
    runs = MlflowClient(settings.mlflow_tracking_uri).search_runs(["1"])
    for _ in range(2):
        assert consolidate(return_state=True).is_completed()
    [job] = list_consolidations(session)
    assert (job.candidate_run_id, job.candidate_snapshot) == (candidate.mlflow_run_id, 1)
    assert len(MlflowClient(settings.mlflow_tracking_uri).search_runs(["1"])) == len(runs)


def test_consolidation_of_nothing_says_so_and_adds_no_job(session: Session) -> None:
    state = consolidate(return_state=True)
    assert state.message == "No document was learned yet: there is nothing to consolidate"
    assert list_consolidations(session) == []
