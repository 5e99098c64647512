import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Engine, exc, text
from sqlmodel import Session, SQLModel

import registry.database
from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from feedback.claiming import answer_jobs
from registry.annotations import add_annotation
from registry.audit import list_entries
from registry.database import build_engine, translate_database_errors
from registry.documents import get_document
from registry.errors import ConflictError
from registry.jobs import Review, add_job, get_job
from registry.lessons import list_learned_lessons, load_lessons, store_lessons
from registry.listed_documents import Order, find_listed, list_documents
from registry.outcome import Decision
from registry.settings import Settings
from registry.tables import JobDocument, JobType
from tests.feedback.jobs import outcome
from tests.postgresql import create_database
from tests.registry.test_annotations import add_document, marked

MIGRATE = "from registry.database import *; migrate_database(Settings())"


def test_migrations_make_the_tables_the_code_uses(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    return create_database(request.getfixturevalue("postgresql"))


def test_processes_that_start_at_once_migrate_an_empty_database_once(empty_database_url: str) -> None:
    environment = os.environ | {"CONTRACT_FEEDBACK_DATABASE_URL": empty_database_url}
    processes = [subprocess.Popen([sys.executable, "-c", MIGRATE], env=environment) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]


def test_connections_that_open_a_new_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    def connect(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")

    with ThreadPoolExecutor(3) as pool:
        for number in range(150):
            settings = Settings(database_url=SecretStr(f"sqlite:///{tmp_path}/{number}.db"))
            list(pool.map(connect, [build_engine(settings) for _ in range(3)]))


def test_times_come_back_in_utc(session: Session) -> None:
    document = add_document(session)
    stored = document.created_at
    session.expire(document)
    assert (document.created_at, document.created_at.tzinfo) == (stored, UTC)


def migrate(engine: Engine, change: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(registry.database.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        change(config, revision)


@pytest.mark.parametrize(
    ("flags", "has_challenger", "decision"),
    [
        ({"promoted": True, "failed": False, "cancelled": False}, True, Decision.PROMOTED),
        ({"promoted": False, "failed": False, "cancelled": False}, True, Decision.NOT_PROMOTED),
        ({"promoted": False, "failed": False, "cancelled": False}, False, Decision.NOT_TRAINED),
        ({"promoted": False, "failed": True, "cancelled": False}, False, Decision.FAILED),
        ({"promoted": False, "failed": True, "cancelled": True}, False, Decision.CANCELLED),
    ],
)
def test_outcome_of_an_earlier_schema_is_migrated_there_and_back(
    engine: Engine, session: Session, flags: dict[str, bool], has_challenger: bool, decision: Decision
) -> None:
    scores = {"version": "2", "score": 0.5, "corrections_kept": 0.25, "held_out": {}}
    old: dict[str, Any] = {
        "flow_run_id": "run",
        "reason": "because",
        "challenger": scores if has_challenger else None,
        "champion": None,
        "taught_documents": ["a"],
        "measured_documents": ["b"],
        "mlflow_run_id": None,
        **flags,
    }
    migrate(engine, command.downgrade, "0005")
    with engine.begin() as connection:
        insert = (
            "INSERT INTO job (id, type, triggered_by, number, created_at, flow_run_id, claimed_by, attempts, outcome)"
            " VALUES ('job', 'feedback', 'ana', 1, '2026-11-23 10:00:00', 'own', 'run', 3, :outcome)"
        )
        connection.execute(text(insert), {"outcome": json.dumps(old)})
    migrate(engine, command.upgrade, "head")
    job = get_job(session, "job")
    assert (job.launched_run_id, job.claiming_run_id, job.failures) == ("own", "run", 3)
    assert job.outcome
    assert job.outcome.decision == decision
    assert job.outcome.training_documents == ["a"]
    assert (job.outcome.challenger and job.outcome.challenger.corrections_reproduced) == (
        0.25 if has_challenger else None
    )
    session.rollback()
    migrate(engine, command.downgrade, "0005")
    with engine.begin() as connection:
        outcome, claimed_by = connection.execute(text("SELECT outcome, claimed_by FROM job")).one()
    assert (outcome if isinstance(outcome, dict) else json.loads(outcome)) == old
    assert claimed_by == "run"


def test_documents_held_out_and_corrections_of_an_earlier_schema_are_migrated_there_and_back(
    engine: Engine, session: Session
) -> None:
    migrate(engine, command.downgrade, "0006")
    insert = (
        "INSERT INTO document (id, filename, media_type, sha256, size_bytes, page_count, character_count, held_out,"
        " created_at, text) VALUES ('d', 'a', 'text/plain', 'a', 1, 1, 4, true, '2026-11-23 10:00:00', 'Bell')"
    )
    with engine.begin() as connection:
        connection.execute(text(insert))
        connection.execute(text("INSERT INTO correction (document_id, type, value) VALUES ('d', 'party', 'bell')"))
    migrate(engine, command.upgrade, "head")
    assert get_document(session, "d").text == "Bell"
    session.rollback()
    migrate(engine, command.downgrade, "0006")
    with engine.begin() as connection:
        assert [tuple(row) for row in connection.execute(text("SELECT id, held_out FROM document"))] == [("d", False)]
        assert connection.execute(text("SELECT count(*) FROM correction")).scalar() == 0


def test_names_and_notes_of_documents_deleted_before_are_deleted(engine: Engine, session: Session) -> None:
    migrate(engine, command.downgrade, "0009")
    insert_entry = (
        "INSERT INTO auditentry (at, principal, action, entity, entity_id, before) VALUES"
        " ('2026-11-23 10:00:00', 'ana', 'deleted', 'document', 'd', '{\"filename\": \"secret\"}')"
    )
    insert_job = (
        "INSERT INTO job (id, type, triggered_by, note, number, created_at, failures) VALUES"
        " ('j', 'feedback', 'ana', 'secret', 1, '2026-11-23 10:00:00', 0)"
    )
    with engine.begin() as connection:
        connection.execute(text(insert_entry.replace(":", "\\:")))
        connection.execute(text(insert_job.replace(":", "\\:")))
    migrate(engine, command.upgrade, "head")
    ((entry,), total) = list_entries(session, 0, 50)
    assert (total, entry.entity_id, entry.before) == (1, "d", None)
    assert get_job(session, "j").note is None


def test_reading_what_a_concurrent_request_deleted_is_a_conflict(engine: Engine, session: Session) -> None:
    document = add_document(session)
    session.commit()
    with Session(engine) as other:
        other.delete(get_document(other, document.id))
        other.commit()
    session.expire(document)
    with pytest.raises(ConflictError, match="read it again"), translate_database_errors():
        assert document.filename


def test_violation_that_a_concurrent_request_causes_is_a_conflict(session: Session) -> None:
    add_document(session, "a")
    with pytest.raises(ConflictError), translate_database_errors():
        add_document(session, "a")
    session.rollback()
    session.add(JobDocument(job_id="none", document_id="none"))
    with pytest.raises(ConflictError), translate_database_errors():
        session.flush()


def test_wrong_row_or_statement_is_a_bug_and_neither_a_conflict_nor_an_outage(session: Session) -> None:
    document = add_document(session)
    document.filename = None  # type: ignore[assignment]
    with pytest.raises(exc.IntegrityError), translate_database_errors():
        session.flush()
    session.rollback()
    with pytest.raises(exc.DBAPIError), translate_database_errors():
        session.connection().execute(text("SELECT * FROM missing"))


def test_what_an_earlier_schema_learned_is_a_lesson_of_the_job_that_taught_it(engine: Engine, session: Session) -> None:
    migrate(engine, command.downgrade, "0012")
    insert_document = (
        "INSERT INTO document (id, filename, media_type, sha256, size_bytes, page_count, character_count, created_at,"
        " text) VALUES (:id, 'a', 'text/plain', :id, 1, 1, 4, '2026-11-23 10:00:00', 'Bell')"
    )
    insert_annotation = (
        'INSERT INTO annotation (id, document_id, type, value, start, "end", reviewer, status, created_at, updated_at,'
        " revision) VALUES ('a', 'learned', 'party', 'Bell', 0, 4, 'ana', 'approved', '2026-11-23 10:00:00',"
        " '2026-11-23 10:00:00', 3)"
    )
    insert_job = (
        "INSERT INTO job (id, type, triggered_by, number, created_at, failures, outcome) VALUES"
        " (:id, 'feedback', 'ana', :number, '2026-11-23 11:00:00', 0, :outcome)"
    )
    decisions = [("learned", "promoted"), ("refused", "promoted"), ("refused", "not_promoted")]
    with engine.begin() as connection:
        for name in ("learned", "refused"):
            connection.execute(text(insert_document), {"id": name})
        for number, (name, decision) in enumerate(decisions, 1):
            outcome = json.dumps({"decision": decision, "reason": "", "flow_run_id": "run"})
            connection.execute(text(insert_job), {"id": f"job {number}", "number": number, "outcome": outcome})
            ids = {"job": f"job {number}", "document": name}
            connection.execute(text("INSERT INTO jobdocument (job_id, document_id) VALUES (:job, :document)"), ids)
        connection.execute(text(insert_annotation))
    migrate(engine, command.upgrade, "head")
    learned = list_learned_lessons(session)
    assert learned == {"learned": "job 1"}
    span = Span(0, 4, "party")
    assert load_lessons(session, learned) == [AnnotationData("learned", "Bell", (span,), frozenset({"party"}))]
    lesson = session.get_one(JobDocument, ("job 1", "learned")).lesson
    assert lesson
    assert [(each.id, each.revision, each.reviewer) for each in lesson.annotations] == [("a", 3, "ana")]


def test_documents_of_an_earlier_schema_are_listed_as_reviewed_unless_they_changed_since(
    engine: Engine, session: Session
) -> None:
    same, changed = (add_document(session, name) for name in ("Same", "Changed"))
    for document in (same, changed):
        add_annotation(session, document, marked("Bell"))
        job = add_job(session, JobType.FEEDBACK, [document.id], "ana")
        store_lessons(session, [job.id])
        answer_jobs(session, [job.id], outcome())
    add_annotation(session, changed, marked("Acme Ltd"))
    session.commit()
    migrate(engine, command.downgrade, "0014")
    migrate(engine, command.upgrade, "head")
    reviews = {name: find_listed(session, [each.id])[each.id]["review"] for name, each in (("a", same), ("b", changed))}
    assert reviews == {"a": Review.REVIEWED, "b": Review.CHANGED}
    assert [document.filename for document in list_documents(session, 0, 2, None, Order.NAME)[0]] == ["Changed", "Same"]


@pytest.mark.parametrize("decided_at", ["2026-11-23T12:00:01.5Z", None])
def test_answer_of_an_earlier_schema_has_the_time_of_its_decision(
    engine: Engine, session: Session, decided_at: str | None
) -> None:
    migrate(engine, command.downgrade, "0017")
    insert = (
        "INSERT INTO job (id, type, triggered_by, number, created_at, failures, outcome) VALUES"
        " ('job', 'feedback', 'ana', 1, '2026-11-23 12:00:00', 0, :outcome)"
    )
    decided = {"decision": "promoted", "reason": "", "flow_run_id": "run", "decided_at": decided_at}
    with engine.begin() as connection:
        connection.execute(text(insert), {"outcome": json.dumps(decided)})
    migrate(engine, command.upgrade, "head")
    job = get_job(session, "job")
    assert job.answered_at == (datetime(2026, 11, 23, 12, 0, 1, 500_000, tzinfo=UTC) if decided_at else None)
    assert job.decision == Decision.PROMOTED
