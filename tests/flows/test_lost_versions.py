"""An MLflow that is restored from a back-up, or emptied, in this process, with real Prefect and MLflow stores."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlmodel import Session, col, select

from feedback.lost_versions import describe_loss, follow_mlflow
from feedback.rollback import follow_promotion
from feedback.unlearning import Withdrawal, withdraw_lessons
from registry.audit import list_entries, record_promotion, set_principal
from registry.database import open_session
from registry.jobs import get_job
from registry.models import ModelRegistry
from registry.outcome import Decision
from registry.settings import Settings
from registry.tables import DeletedDocument, Job, JobDocument
from tests.flows.test_consolidation import database_url, learn, run_job
from tests.flows.test_feedback import add_feedback
from tests.flows.test_unlearning import delete, get_outcome, run_consolidation

__all__ = ["database_url"]  # a fixture
pytestmark = pytest.mark.usefixtures("flow_environment")


def back_up(tmp_path: Path) -> Path:
    return Path(shutil.copy(tmp_path / "mlflow.db", tmp_path / "back-up.db"))


def restore(tmp_path: Path, back_up: Path) -> None:
    shutil.copy(back_up, tmp_path / "mlflow.db")


def follow(session: Session, settings: Settings) -> list[str]:
    session.commit()
    done = follow_mlflow(partial(open_session, settings), ModelRegistry(settings))
    session.expire_all()
    return done


def list_jobs(session: Session) -> list[Job]:
    session.rollback()
    return list(session.exec(select(Job).order_by(col(Job.number))))


def list_taught(session: Session, registry: ModelRegistry, version: str) -> set[str]:
    """Return the jobs whose lessons a version learned."""
    return {str(job_id) for job_id in registry.get_lineage(version).training.values()}


@pytest.mark.slow
def test_what_came_after_the_back_up_is_taught_again_in_one_run_under_numbers_that_are_new(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    registry = ModelRegistry(settings)
    learn(session, 1)
    saved = back_up(tmp_path)
    for seed in (2, 3):
        learn(session, seed)
    first, *lost = list_jobs(session)
    assert describe_loss(session, registry) is None
    restore(tmp_path, saved)
    assert "MLflow lacks version 3 of 20" in str(describe_loss(session, registry))
    new = add_feedback(session, 4)
    outcome = run_job(session, new)
    assert outcome.champion
    assert (outcome.champion.version, outcome.live_version, registry.find_champion()) == ("1", "4", "4")
    assert list_taught(session, registry, "4") == {lost[0].id, lost[1].id, new}
    assert [get_job(session, job.id).outcome.live_version for job in (first, *lost)] == ["1", "4", "4"]  # type: ignore[union-attr]
    assert [job.lost_version for job in lost] == [2, 3]
    assert describe_loss(session, registry) is None
    assert follow(session, settings) == []
    before = [entry.before or {} for entry in list_entries(session, 0, 10)[0]]
    assert {each["outcome"]["challenger"]["version"] for each in before} == {"2", "3"}


@pytest.mark.slow
def test_everything_is_taught_again_by_one_run_after_mlflow_was_emptied(
    session: Session, settings: Settings, tmp_path: Path, empty_mlflow_store: Path
) -> None:
    for seed in (1, 2):
        learn(session, seed)
    restore(tmp_path, empty_mlflow_store)
    assert follow(session, settings) == [
        "MLflow lacks versions 1 to 2, which the database knows: 2 jobs are taught again."
    ]
    jobs, registry = list_jobs(session), ModelRegistry(settings)
    assert "2 jobs are taught again" in str(describe_loss(session, registry))
    assert follow(session, settings) == []
    run_job(session, jobs[0].id)
    assert registry.find_champion() == "3"
    assert list_taught(session, registry, "3") == {job.id for job in jobs}
    assert describe_loss(session, registry) is None


@pytest.mark.slow
def test_second_restore_before_anything_is_taught_again_uses_no_number_twice(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    learn(session, 1)
    saved = back_up(tmp_path)
    learn(session, 2)
    for _ in range(2):
        restore(tmp_path, saved)
        follow(session, settings)
    job = list_jobs(session)[1]
    assert run_job(session, job.id).live_version == "3"


@pytest.mark.slow
def test_document_that_was_unlearned_after_the_back_up_is_unlearned_again(
    session: Session, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, registry = [learn(session, seed) for seed in (1, 2)], ModelRegistry(settings)
    saved = back_up(tmp_path)
    request = delete(session, documents[1])
    run_job(session, run_consolidation(session, monkeypatch).id)
    assert session.get_one(DeletedDocument, documents[1]).unlearned_from == 3
    restore(tmp_path, saved)
    assert registry.find_champion() == "2"
    done = follow(session, settings)
    assert done[-1] == "Version 2 may have learned what was unlearned: unlearned again for 1 requests."
    assert get_outcome(session, request) is None
    assert session.get_one(DeletedDocument, documents[1]).unlearned_from is None
    run_job(session, run_consolidation(session, monkeypatch).id)
    assert list(registry.get_lineage("4").training) == [documents[0]]
    assert (registry.find_champion(), follow(session, settings)) == ("4", [])
    assert session.get_one(DeletedDocument, documents[1]).unlearned_from == 4
    answer = get_outcome(session, request)
    assert answer
    assert answer.live_version == "4"


@pytest.mark.slow
def test_withdrawn_lessons_are_unlearned_again_though_their_documents_remain(
    session: Session, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [learn(session, seed) for seed in (1, 2)]
    saved = back_up(tmp_path)
    request = withdraw_lessons(session, Withdrawal(document_ids=[documents[1]]), "ana").id
    run_job(session, run_consolidation(session, monkeypatch).id)
    assert get_outcome(session, request)
    restore(tmp_path, saved)
    follow(session, settings)
    assert get_outcome(session, request) is None
    run_job(session, run_consolidation(session, monkeypatch).id)
    registry = ModelRegistry(settings)
    assert list(registry.get_lineage(str(registry.find_champion())).training) == [documents[0]]
    assert get_outcome(session, request)


@pytest.mark.slow
def test_rollback_by_a_person_holds_though_mlflow_has_lost_it(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    registry, client = ModelRegistry(settings), MlflowClient(settings.mlflow_tracking_uri)
    for seed in (1, 2):
        learn(session, seed)
    client.set_model_version_tag(settings.model_name, "1", "promoted_at", "2026-01-01T00:00:00+00:00")
    saved = back_up(tmp_path)
    registry.promote("1")
    set_principal(session, "ana")
    record_promotion(session, "1", "2", None)
    follow_promotion(session, "1", "ana", "2")
    session.commit()
    restore(tmp_path, saved)
    assert registry.find_champion() == "2"
    outcome = run_job(session, add_feedback(session, 3))
    assert outcome.champion
    assert outcome.champion.version == "1"
    decisions = [job.outcome.decision for job in list_jobs(session) if job.outcome]
    assert decisions == [Decision.PROMOTED, Decision.ROLLED_BACK, Decision.PROMOTED]


@pytest.mark.slow
def test_version_that_a_person_deleted_in_mlflow_is_not_taught_again(session: Session, settings: Settings) -> None:
    for seed in (1, 2):
        learn(session, seed)
    client = MlflowClient(settings.mlflow_tracking_uri)
    client.delete_model_version(settings.model_name, "2")
    client.set_registered_model_alias(settings.model_name, "champion", "1")
    assert follow(session, settings) == []
    outcome = run_job(session, add_feedback(session, 3))
    assert outcome.champion
    assert outcome.champion.version == "1"
    decisions = [job.outcome.decision for job in list_jobs(session) if job.outcome]
    assert decisions == [Decision.PROMOTED, Decision.ROLLED_BACK, Decision.PROMOTED]
    assert session.exec(select(JobDocument)).all()
