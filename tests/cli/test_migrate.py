import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from typer.testing import CliRunner

from cli.command_line import app
from registry.database import list_revisions
from registry.settings import get_settings


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def set_revision(database_url: str, revision: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def run(database_url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CONTRACT_FEEDBACK_DATABASE_URL": database_url, "PREFECT_API_URL": "http://127.0.0.1:1"}
    command = [sys.executable, "-m", "cli.command_line", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_database_is_checked_migrated_and_checked_again(tmp_path: Path, database_url: str) -> None:
    before = run(database_url, tmp_path, "migrate", "--check")
    newest = list_revisions()[0]
    assert before.stderr == (
        f"The database has no tables, and this release needs {newest}: run `contract-feedback migrate`\n"
    )
    assert before.returncode == 1
    for _ in range(2):
        assert run(database_url, tmp_path, "migrate").returncode == 0
    assert run(database_url, tmp_path, "migrate", "--check").returncode == 0
    set_revision(database_url, "0016")
    old = run(database_url, tmp_path, "migrate", "--check")
    assert "has revision 0016" in old.stderr
    assert old.returncode == 1


@pytest.mark.parametrize("command", ["migrate", "migrate --check", "add-key ana", "api --port 0", "serve --folder ."])
def test_command_on_a_newer_schema_says_what_to_upgrade(tmp_path: Path, engine: Engine, command: str) -> None:
    database_url = f"sqlite:///{tmp_path}/contract-feedback.db"  # where `serve` has it
    (tmp_path / "test.db").rename(tmp_path / "contract-feedback.db")
    set_revision(database_url, "0999")
    options = ["--port", "0", "--prefect-port", "0", "--mlflow-port", "0"] if "serve" in command else []
    refused = run(database_url, tmp_path, *command.split(), *options)
    said = " ".join(refused.stderr.replace("│", "").split())
    assert "The database has revision 0999, which this release does not know: upgrade contract-feedback" in said
    assert "Traceback" not in refused.stderr
    assert refused.returncode in {1, 2}


def test_database_that_does_not_answer_is_a_refused_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRACT_FEEDBACK_DATABASE_URL", "postgresql+psycopg://ana@127.0.0.1:1/none")
    get_settings.cache_clear()
    refused = CliRunner().invoke(app, ["migrate"])
    get_settings.cache_clear()
    assert "The database does not answer" in refused.output
    assert refused.exit_code == 2
