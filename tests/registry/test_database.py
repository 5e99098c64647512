import os
import subprocess
import sys
from datetime import UTC

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine
from sqlmodel import Session, SQLModel

from tests.registry.test_annotations import add_document

MIGRATE = "from registry.database import *; migrate_database(Settings())"


def test_migrations_make_the_tables_the_code_uses(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_processes_that_start_at_once_migrate_an_empty_database_once(database_url: str) -> None:
    environment = os.environ | {"CONTRACT_FEEDBACK_DATABASE_URL": database_url}
    processes = [subprocess.Popen([sys.executable, "-c", MIGRATE], env=environment) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]


def test_times_come_back_in_utc(session: Session) -> None:
    document = add_document(session)
    stored = document.created_at
    session.expire(document)
    assert (document.created_at, document.created_at.tzinfo) == (stored, UTC)
