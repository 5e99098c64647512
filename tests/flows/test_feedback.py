"""The flow in this process, with a real Prefect server and an MLflow store for each test."""

from collections.abc import Callable
from uuid import UUID

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from sqlalchemy import Engine, text
from sqlmodel import Session, col, select

from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import Span
from feedback.training_set import TrainingSet, load_training_set
from flows import feedback
from flows.artifacts import Progress
from flows.feedback import LearningRequest, learn_from_feedback
from registry.annotations import replace_annotations
from registry.errors import ConflictError
from registry.jobs import add_job, get_job, list_job_documents
from registry.models import ModelRegistry
from registry.outcome import Decision, Outcome
from registry.settings import Settings
from registry.tables import AnnotationBase, Document, EventType, JobType, WebhookDelivery
from registry.webhooks import add_webhook

pytestmark = pytest.mark.usefixtures("flow_environment")


def add_feedback(session: Session, seed: int, change: Callable[[tuple[Span, ...]], tuple[Span, ...]] = tuple) -> str:
    contract = generate_contract(seed)
    document = Document(
        filename=contract.filename, media_type="text/plain", sha256=str(seed), size_bytes=1, page_count=1,
        character_count=len(contract.text), text=contract.text,
    )  # fmt: skip
    session.add(document)
    session.flush()
    marked = [
        AnnotationBase(type=span.type, value=contract.text[span.start : span.end], start=span.start, end=span.end)
        for span in change(contract.spans)
    ]
    replace_annotations(session, document, marked)
    job = add_job(session, JobType.FEEDBACK, [document.id], "tester")
    session.commit()
    return job.id


def learn_from_champion(session: Session, job_id: str) -> str | None:
    """Learn a job, and return the version that was the champion before."""
    learn_from_feedback(LearningRequest(job_id=job_id))
    session.expire_all()
    outcome = get_job(session, job_id).outcome
    assert outcome
    assert outcome.champion
    return outcome.champion.version


def read_name(flow_run_id: str) -> str:
    with get_client(sync_client=True) as prefect:
        return prefect.read_flow_run(UUID(flow_run_id)).name


def test_run_interrupted_after_training_registers_the_trained_model(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = "11111111-1111-4111-8111-111111111111"
    request = LearningRequest(job_id=add_feedback(session, 1))
    training_set = feedback.load_annotations.fn(run_id, request)
    tuned = feedback.fine_tune.fn(training_set, None, Progress())
    trained = feedback.save_challenger.fn(run_id, training_set, None, tuned, "ana")

    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", run_id)
    state = learn_from_feedback(request, return_state=True)

    assert state.is_completed(), state.message
    session.expire_all()
    outcome = get_job(session, str(request.job_id)).outcome
    assert outcome
    assert outcome.challenger
    assert (outcome.mlflow_run_id, outcome.challenger.version) == (trained.mlflow_run_id, "1")
    assert outcome.challenger.reliability
    assert len(MlflowClient(settings.mlflow_tracking_uri).search_runs(["1"], "tags.trained = 'yes'")) == 1


def test_run_with_nothing_marked_and_no_champion_fails_with_the_reason(session: Session) -> None:
    document = Document(
        filename="a", media_type="text/plain", sha256="a", size_bytes=1, page_count=1, character_count=5,
        text="Nada.",
    )  # fmt: skip
    session.add(document)
    session.flush()
    job = add_job(session, JobType.FEEDBACK, [document.id], "tester")
    session.commit()
    state = learn_from_feedback(LearningRequest(job_id=job.id), return_state=True)
    assert state.is_failed()
    assert "needs at least one annotation" in str(state.message)
    session.expire_all()
    outcome = get_job(session, job.id).outcome
    assert outcome
    assert outcome.decision == Decision.FAILED
    assert "needs at least one annotation" in outcome.reason


def test_run_never_starts_from_nothing_because_the_champion_lost_its_alias(
    session: Session, settings: Settings
) -> None:
    learn_from_feedback(LearningRequest(job_id=add_feedback(session, 1)))
    client = MlflowClient(settings.mlflow_tracking_uri)
    client.delete_registered_model_alias(settings.model_name, "champion")
    job_id = add_feedback(session, 2)
    state = learn_from_feedback(LearningRequest(job_id=job_id), return_state=True)
    assert state.is_failed()
    assert "promote one with POST /models/{version}/promote" in str(state.message)
    session.expire_all()
    assert get_job(session, job_id).outcome is None
    client.set_registered_model_alias(settings.model_name, "champion", "1")
    assert learn_from_champion(session, job_id) == "1"


@pytest.mark.slow
def test_run_does_not_promote_over_what_a_person_promoted_meanwhile(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, register = ModelRegistry(settings), ModelRegistry.register
    for seed in (1, 2):
        learn_from_feedback(LearningRequest(job_id=add_feedback(session, seed)))
    served = registry.find_champion()

    def roll_back_meanwhile(self: ModelRegistry, run_id: str, outcome: Outcome, above: int) -> str:
        self.promote("1")
        return register(self, run_id, outcome, above)

    job_id = add_feedback(session, 3)
    with monkeypatch.context() as patch:
        patch.setattr(ModelRegistry, "register", roll_back_meanwhile)
        state = learn_from_feedback(LearningRequest(job_id=job_id), return_state=True)
    assert served != "1"
    assert state.is_failed()
    assert "Version 1 was promoted meanwhile" in str(state.message)
    assert registry.find_champion() == "1"
    assert learn_from_champion(session, job_id) == "1"


@pytest.mark.slow
def test_what_a_rollback_set_aside_is_not_replayed(session: Session, settings: Settings) -> None:
    jobs = []
    for seed in range(1, 4):
        jobs.append(add_feedback(session, seed))
        learn_from_feedback(LearningRequest(job_id=jobs[-1]))
    registry = ModelRegistry(settings)
    registry.promote("2")  # as in MLflow's UI: nothing but the alias is changed
    jobs.append(add_feedback(session, 4))
    learn_from_feedback(LearningRequest(job_id=jobs[-1]))
    session.expire_all()
    outcomes = [get_job(session, job_id).outcome for job_id in jobs]
    assert [outcome and outcome.decision for outcome in outcomes] == ["promoted", "promoted", "rolled_back", "promoted"]
    documents = [document_id for job_id in jobs for document_id in list_job_documents(session, [job_id])]
    lineage = registry.get_lineage("4")
    assert set(lineage.training) == {documents[3]}
    assert set(lineage.replay) == set(documents[:2])


@pytest.mark.slow
def test_runs_store_what_webhooks_are_told(session: Session, settings: Settings) -> None:
    add_webhook(session, "https://example.com/", EventType)
    for seed in range(1, 4):
        learn_from_feedback(LearningRequest(job_id=add_feedback(session, seed)))
        ModelRegistry(settings).promote("1")
    session.expire_all()
    stored = session.exec(select(WebhookDelivery.event_type).order_by(col(WebhookDelivery.created_at))).all()
    learned, rolled_back = ["feedback.live", "model.promoted"], ["feedback.set_aside", "model.rolled_back"]
    assert stored == [*learned, *learned, *rolled_back, *learned]


def test_run_started_by_hand_without_parameters_learns_what_waits(session: Session) -> None:
    job = get_job(session, add_feedback(session, 1))
    assert learn_from_feedback(return_state=True).is_completed()
    session.expire_all()
    assert job.outcome
    assert read_name(job.outcome.flow_run_id) == "v1 promoted: 1 document"
    nothing = learn_from_feedback(return_state=True)
    assert "There is no feedback to learn from" in str(nothing.message)
    assert read_name(str(nothing.state_details.flow_run_id)) == "nothing left to learn"


def test_run_started_by_hand_gets_its_own_job(session: Session) -> None:
    first = get_job(session, add_feedback(session, 1))
    learn_from_feedback(LearningRequest(job_id=first.id))
    session.expire_all()
    assert first.outcome
    learn_from_feedback(LearningRequest(document_ids=first.outcome.training_documents, triggered_by="ana"))
    session.expire_all()
    by_hand = session.connection().exec_driver_sql("SELECT type, triggered_by FROM job ORDER BY created_at").all()
    assert [tuple(row) for row in by_hand] == [("feedback", "tester"), ("training_run", "ana")]


def test_bug_in_a_task_is_not_retried_like_an_outage(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        raise TypeError("a bug")

    monkeypatch.setattr(feedback, "load_training_set", fail)
    state = learn_from_feedback(LearningRequest(job_id=add_feedback(session, 1)), return_state=True)
    assert state.is_failed()
    assert "a bug" in str(state.message)
    assert len(calls) == 1


def test_concurrent_change_during_a_task_is_retried(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail_once(session: Session, job_ids: list[str]) -> TrainingSet:
        calls.append(1)
        if len(calls) == 1:
            raise ConflictError("Somebody changed the same record")
        return load_training_set(session, job_ids)

    monkeypatch.setattr(feedback, "load_training_set", fail_once)
    state = learn_from_feedback(LearningRequest(job_id=add_feedback(session, 1)), return_state=True)
    assert state.is_completed(), state.message
    assert len(calls) == 2


def test_run_on_a_newer_schema_fails_and_says_what_to_upgrade(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    state = learn_from_feedback(return_state=True)
    assert state.is_failed()
    assert "revision 0999, which this release does not know: upgrade" in str(state.message)
