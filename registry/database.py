"""The database: SQLite by default, PostgreSQL by URL."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, exc, make_url
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError
from sqlmodel import Session, create_engine

import registry.listed_documents  # noqa: F401  (its events keep the list of documents up to date)
from registry.errors import ConflictError, NewerSchemaError, SchemaError, build_outage_error
from registry.settings import Settings

_FOR_THREADS = 10  # connections above the pool's size, for what an API does beside requests
_WAL_SECONDS = 5
_WAIT_FOR_OTHER_MIGRATIONS = {
    "postgresql": "SELECT pg_advisory_xact_lock(7236941)",
    "sqlite": "BEGIN IMMEDIATE",
}


def build_engine(settings: Settings) -> Engine:
    """Return an engine for the settings' database, whose errors show no values; the caller must dispose of it."""
    url, size = make_url(settings.database_url.get_secret_value()), settings.database_connections
    if url.get_backend_name() != "sqlite":
        return create_engine(url, hide_parameters=True, pool_size=size, max_overflow=_FOR_THREADS, pool_pre_ping=True)
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    options = {"pool_size": size, "max_overflow": _FOR_THREADS, "connect_args": {"timeout": 30}}
    engine = create_engine(url, hide_parameters=True, **options)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "checkin", _roll_back_failed_commit)
    return engine


@contextmanager
def open_session(settings: Settings) -> Iterator[Session]:
    """Open the settings' database for one transaction, committed at the end of the block unless it raises.

    Raises SchemaError if it has another release's schema, and errors as `translate_database_errors` does.
    """
    engine = build_engine(settings)
    try:
        with translate_database_errors(), Session(engine) as session, session.begin():
            check_schema(session.connection())
            yield session
    finally:
        engine.dispose()


@contextmanager
def translate_database_errors() -> Iterator[None]:
    """Raise ConflictError if a concurrent change interfered, UnavailableError if the database does not answer.

    Any other error is a bug and remains as it is.
    """
    try:
        yield
    except (exc.IntegrityError, StaleDataError, ObjectDeletedError) as error:
        if isinstance(error, exc.IntegrityError) and not _is_concurrent_change(error):
            raise
        raise ConflictError("Somebody changed the same record at the same time: read it again, then retry") from error
    except (exc.OperationalError, exc.TimeoutError) as error:
        if isinstance(error, exc.OperationalError) and _is_wrong_statement(error):
            raise
        raise build_outage_error("The database") from error


def migrate(engine: Engine) -> None:
    """Migrate the database to this release's schema; processes that do so at the same time wait for each other.

    Raises NewerSchemaError if a later release has migrated it.
    """
    config = _build_config()
    with engine.begin() as connection:
        connection.exec_driver_sql(_WAIT_FOR_OTHER_MIGRATIONS[engine.dialect.name])
        _find_revision(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def migrate_database(settings: Settings) -> None:
    """Migrate the settings' database; raise errors as `migrate` and `translate_database_errors` do."""
    engine = build_engine(settings)
    try:
        with translate_database_errors():
            migrate(engine)
    finally:
        engine.dispose()


def check_schema(connection: Connection) -> None:
    """Raise NewerSchemaError if a later release has migrated the database, SchemaError if this one has yet to."""
    found, needed = _find_revision(connection), list_revisions()[0]
    if found != needed:
        has = f"has revision {found}" if found else "has no tables"
        raise SchemaError(f"The database {has}, and this release needs {needed}: run `contract-feedback migrate`")


def check_database(engine: Engine) -> None:
    """Raise UnavailableError if the database does not answer, SchemaError if this release has yet to migrate it.

    A later release may have migrated it while this process runs: the release before goes on until it is replaced.
    """
    with translate_database_errors(), engine.connect() as connection, suppress(NewerSchemaError):
        check_schema(connection)


def _find_revision(connection: Connection) -> str | None:
    """Return the database's revision, None if it is empty; raise NewerSchemaError if this release does not know it."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found and found not in list_revisions():
        raise NewerSchemaError(
            f"The database has revision {found}, which this release does not know: upgrade contract-feedback on this "
            "machine"
        )
    return found


@lru_cache
def list_revisions() -> list[str]:
    """Return all revisions of this release, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(_build_config()).walk_revisions()]


def _build_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _configure_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA foreign_keys=ON")


def _roll_back_failed_commit(connection: sqlite3.Connection | None, _: Any) -> None:
    """End a transaction whose commit has failed: SQLAlchemy does not, and the next commit would store its changes."""
    if connection and connection.in_transaction:
        connection.rollback()


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL; SQLite does not wait, as it otherwise does, for another process that does so, too."""
    until = time.monotonic() + _WAL_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _is_concurrent_change(error: exc.DBAPIError) -> bool:
    """Tell whether a constraint was violated that a correct request violates only if another request is faster."""
    violated = {
        "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_FOREIGNKEY",
        "23505", "23503",  # PostgreSQL's codes for unique and foreign keys
    }  # fmt: skip
    return not violated.isdisjoint(_list_codes(error))


def _is_wrong_statement(error: exc.DBAPIError) -> bool:
    """Tell whether SQLite rejects the statement itself, say for a missing table; PostgreSQL has other errors for it."""
    return "SQLITE_ERROR" in _list_codes(error)


def _list_codes(error: exc.DBAPIError) -> set[str | None]:
    return {getattr(error.orig, "sqlite_errorname", None), getattr(error.orig, "sqlstate", None)}
