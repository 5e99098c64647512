"""Unlearning in this process, from the request to the version that answers it, with real Prefect and MLflow stores."""

from pathlib import Path
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlmodel import Session, col, select

from api.app import create_app
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import consolidate_model
from embeddinggemma_feasibility.encoders import Encoder, load_encoder
from embeddinggemma_feasibility.representations import hash_text
from embeddinggemma_feasibility.training_config import TrainingConfig
from feedback.unlearning import Withdrawal, delete_document, withdraw_lessons
from flows import consolidation
from flows.consolidation import consolidate
from registry.annotations import list_annotations, replace_annotations
from registry.cache import hash_files
from registry.jobs import add_job, get_job
from registry.keys import Scope, add_key
from registry.lessons import list_learned_lessons, load_lessons
from registry.models import ModelRegistry
from registry.outcome import Decision, Outcome
from registry.served_model import ServedModel
from registry.settings import Settings
from registry.tables import AnnotationBase, Document, Job, JobDocument, JobType
from tests.flows.test_consolidation import RUN_ID, database_url, fit_and_save, learn, list_consolidations, run_job
from tests.flows.test_feedback import add_feedback

__all__ = ["database_url"]  # a fixture
pytestmark = pytest.mark.usefixtures("flow_environment")


def run_consolidation(session: Session, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Consolidate, and return the job that hands the result over."""
    session.commit()
    known = {job.id for job in list_consolidations(session)}
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(uuid4()))
    state = consolidate(return_state=True)
    monkeypatch.delenv("PREFECT__RUNTIME__FLOW_RUN__ID")
    assert state.is_completed(), state.message
    [job] = (job for job in list_consolidations(session) if job.id not in known)
    return job


def delete(session: Session, document_id: str) -> str:
    """Delete a document, and return the id of the request to unlearn it."""
    delete_document(session, session.get_one(Document, document_id), "ana")
    session.commit()
    return (
        session.exec(select(Job.id).where(Job.type == JobType.UNLEARNING).order_by(col(Job.number).desc())).first()
        or ""
    )


def get_outcome(session: Session, job_id: str) -> Outcome | None:
    session.expire_all()
    return get_job(session, job_id).outcome


def load_learned(session: Session) -> list[AnnotationData]:
    return load_lessons(session, list_learned_lessons(session))


def fit_alone(documents: list[AnnotationData], encoder: Encoder, folder: Path) -> dict[str, str]:
    """Return the hashes of the files of a model that never saw other documents."""
    model = consolidate_model(documents, None, encoder).model
    model.save(folder / "model", folder / "training")
    return {"model_sha256": hash_files(folder / "model"), "training_sha256": hash_files(folder / "training")}


@pytest.mark.slow
def test_unlearned_version_has_the_same_bytes_as_one_that_never_saw_the_withdrawn_document(
    session: Session, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, encoder = [learn(session, seed) for seed in (1, 2, 3)], load_encoder(settings.encoder)
    everything = load_learned(session)
    rest = [data for data in everything if data.document_id != documents[1]]
    request = withdraw_lessons(session, Withdrawal(document_ids=[documents[1]]), "ana")
    handover = run_consolidation(session, monkeypatch)
    assert get_outcome(session, request.id) is None
    assert run_job(session, handover.id).decision == Decision.PROMOTED
    registry = ModelRegistry(settings)
    tags = MlflowClient(settings.mlflow_tracking_uri).get_model_version(settings.model_name, "4").tags
    alone = fit_alone(rest, encoder, tmp_path / "rest")
    assert {name: tags[name] for name in alone} == alone
    with_it = fit_alone(everything, encoder, tmp_path / "everything")
    assert {name for name in alone if alone[name] != with_it[name]} == set(alone), "the test cannot fail"
    answer = get_outcome(session, request.id)
    assert answer
    assert answer.challenger
    assert (answer.decision, answer.challenger.version, registry.find_champion()) == (Decision.PROMOTED, "4", "4")
    assert "Unlearning: fitted from nothing on 2 documents" in answer.reason
    assert "Nothing is from an earlier version. It has no adapter." in answer.reason
    assert list(registry.get_lineage("4").training) == [documents[0], documents[2]]


@pytest.mark.slow
def test_deleted_document_is_unlearned_with_its_traces(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [learn(session, seed) for seed in (1, 2, 3)]
    text_hash = hash_text(session.get_one(Document, documents[1]).text)
    cache = Path(settings.cache_folder) / "representations"
    assert list(cache.glob(f"{text_hash}*"))
    request = delete(session, documents[1])
    registry = ModelRegistry(settings)
    assert any(documents[1] in registry.get_lineage(version).model_dump_json() for version in "123")
    handover = run_consolidation(session, monkeypatch)
    assert not list(cache.glob(f"{text_hash}*"))
    (cache / (text_hash + "0" * 32)).write_text("a run was reading it")
    assert run_job(session, handover.id).decision == Decision.PROMOTED
    assert not list(cache.glob(f"{text_hash}*"))
    assert get_outcome(session, request)
    for version in "1234":
        lineage = registry.get_lineage(version).model_dump_json()
        assert documents[1] not in lineage
        assert version == "2" or documents[0] in lineage
    key = add_key(session, "ana", list(Scope))
    session.commit()
    headers = {"Authorization": f"Bearer {key}"}
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        TestClient(create_app(settings), headers=headers) as client,
    ):
        gone = client.get(f"/documents/{documents[1]}")
        assert gone.status_code == 410
        assert gone.json()["detail"].endswith("It is unlearned: versions from 4 on were made without it.")
        refused = client.post("/models/3/promote")
        assert refused.status_code == 409
        assert refused.json()["detail"].endswith("was deleted: promote a version before 2 or from 4 on")
        assert client.post("/models/1/promote").status_code == 200


@pytest.mark.slow
def test_withdrawn_lesson_of_a_reviewer_leaves_what_another_taught_before(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    document_id = learn(session, 1)
    [before] = load_learned(session)
    document = session.get_one(Document, document_id)
    first = list_annotations(session, document_id)[0]
    replace_annotations(session, document, [AnnotationBase(**first.model_dump(include={*AnnotationBase.model_fields}))])
    wrong = add_job(session, JobType.FEEDBACK, [document_id], "rui")
    assert run_job(session, wrong.id).decision == Decision.PROMOTED
    assert [len(data.spans) for data in load_learned(session)] == [1]
    assert len(before.spans) > 1
    withdraw_lessons(session, Withdrawal(reviewers=["rui"]), "ana")
    assert load_learned(session) == [before]
    outcome = run_job(session, run_consolidation(session, monkeypatch).id)
    assert (outcome.decision, ModelRegistry(settings).find_champion()) == (Decision.PROMOTED, "3")


@pytest.mark.slow
def test_deletion_during_a_fit_is_not_answered_by_it_but_by_the_next(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, fit, requests = [learn(session, seed) for seed in (1, 2, 3)], consolidation.fit, list[str]()
    requests.append(delete(session, documents[0]))

    def fit_while_another_is_deleted(*arguments: object) -> object:
        requests.append(delete(session, documents[1]))
        return fit(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(consolidation, "fit", fit_while_another_is_deleted)
        first = run_consolidation(session, monkeypatch)
    run_job(session, first.id)
    assert [get_outcome(session, each) is not None for each in requests] == [True, False]
    second = run_consolidation(session, monkeypatch)
    run_job(session, second.id)
    assert [get_outcome(session, each) is not None for each in requests] == [True, True]
    registry = ModelRegistry(settings)
    assert registry.find_champion() == "5"
    assert list(registry.get_lineage("5").training) == [documents[2]]


@pytest.mark.slow
def test_consolidation_from_before_a_deletion_that_was_answered_is_not_promoted(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [learn(session, seed) for seed in (1, 2)]
    candidate = fit_and_save(consolidation.load_learned.fn(RUN_ID))
    request = delete(session, documents[1])
    unlearning = run_consolidation(session, monkeypatch)
    assert run_job(session, unlearning.id).decision == Decision.PROMOTED
    assert get_outcome(session, request)
    outcome = run_job(session, consolidation.hand_over.fn(RUN_ID, candidate))
    assert outcome.decision == Decision.NOT_PROMOTED
    assert "it learned what was set aside or withdrawn since" in outcome.reason
    assert ModelRegistry(settings).find_champion() == "3"


@pytest.mark.slow
def test_after_the_only_document_is_deleted_no_version_serves_until_the_next_feedback(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry(settings)
    served, document_id = ServedModel(registry), learn(session, 1)
    assert served.get()
    request = delete(session, document_id)
    handover = run_consolidation(session, monkeypatch)
    assert served.get()
    outcome = run_job(session, handover.id)
    assert outcome.reason == (
        "Unlearning: Nothing is left to learn from. No version is served until there is feedback to learn from."
    )
    assert get_outcome(session, request) == outcome
    assert (registry.find_champion(), served.get()) == (None, None)
    learn(session, 2)
    assert registry.find_champion() == "2"
    assert registry.get_version("2").parent_version is None


@pytest.mark.slow
def test_adapter_that_learned_a_deleted_document_is_left_out(
    session: Session, settings: Settings, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, registry = [learn(session, seed) for seed in (1, 2)], ModelRegistry(settings)
    adapted = consolidate_model(load_learned(session), None, tiny_encoder, TrainingConfig(first_adaptation=1))
    with monkeypatch.context() as patch:
        patch.setattr(consolidation, "fit", lambda *_: adapted)
        run_job(session, run_consolidation(session, monkeypatch).id)
    assert registry.load_model("3").full.adapted
    run_job(session, run_consolidation(session, monkeypatch).id)
    assert registry.load_model("4").full.adapted
    delete(session, documents[0])
    run_job(session, run_consolidation(session, monkeypatch).id)
    assert registry.find_champion() == "5"
    assert registry.load_model("5").full.adapted is None


@pytest.mark.slow
def test_what_a_job_waits_to_teach_is_not_learned_once_it_is_withdrawn(session: Session, settings: Settings) -> None:
    learn(session, 1)
    waiting = add_feedback(session, 2)
    withdraw_lessons(session, Withdrawal(document_ids=[session.exec(
        select(JobDocument.document_id).where(JobDocument.job_id == waiting)
    ).one()]), "ana")  # fmt: skip
    assert run_job(session, waiting).decision == Decision.NOT_TRAINED
    assert ModelRegistry(settings).find_champion() == "1"
