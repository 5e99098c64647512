"""The database: SQLite by default, PostgreSQL by URL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event, make_url
from sqlmodel import Session, create_engine

from registry.settings import Settings

CONNECTIONS = 40  # for requests, as many as FastAPI has threads that answer them
_WAIT_FOR_OTHER_MIGRATIONS = {
    "postgresql": "SELECT pg_advisory_xact_lock(7236941)",
    "sqlite": "BEGIN IMMEDIATE",
}


def build_engine(settings: Settings) -> Engine:
    """Return an engine for the settings' database, whose errors show no values; the caller disposes of it."""
    url = make_url(settings.database_url.get_secret_value())
    if url.get_backend_name() != "sqlite":
        return create_engine(url, hide_parameters=True, pool_size=CONNECTIONS, pool_pre_ping=True)
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, hide_parameters=True, pool_size=CONNECTIONS, connect_args={"timeout": 30})
    event.listen(engine, "connect", _configure_sqlite)
    return engine


@contextmanager
def open_session(settings: Settings) -> Iterator[Session]:
    """Open the settings' database for one unit of work, committed at its end unless it raises."""
    engine = build_engine(settings)
    try:
        with Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


def migrate(engine: Engine) -> None:
    """Bring the database's tables to the newest version; processes that start at once do so one after the other."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        connection.exec_driver_sql(_WAIT_FOR_OTHER_MIGRATIONS[engine.dialect.name])
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def migrate_database(settings: Settings) -> None:
    """Bring the settings' database to the newest version, for a process that keeps no engine."""
    engine = build_engine(settings)
    try:
        migrate(engine)
    finally:
        engine.dispose()


def _configure_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
