import subprocess
import sys

import pytest
from sqlmodel import Session
from typer.testing import CliRunner

from cli.command_line import app
from feedback.time_limits import TimeLimits
from registry.keys import find_key
from registry.settings import Settings, get_settings


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_key_is_made_listed_and_revoked(session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRACT_FEEDBACK_DATABASE_URL", settings.database_url.get_secret_value())
    get_settings.cache_clear()
    key = run("add-key", "ana", "--scope", "read", "--scope", "train").strip()
    assert "ana  read train  never used" in run("list-keys")
    assert find_key(session, key)
    session.commit()
    key_id = key.split("_")[1]
    assert f"{key_id}  ana  read train  used" in run("list-keys")
    assert "is revoked" in run("revoke-key", key_id)
    session.expire_all()
    assert find_key(session, key) is None
    assert "revoked" in run("list-keys")
    assert "There is no key" in CliRunner().invoke(app, ["revoke-key", "none"]).output
    for name in ("", "a" * 201, "ana\nbo"):
        assert "1 to 200 printable characters" in CliRunner().invoke(app, ["add-key", name]).output
    get_settings.cache_clear()


def test_every_setting_is_in_the_table_with_a_description_and_its_default() -> None:
    lines = run("settings").splitlines()
    assert lines[:2] == ["| variable | default | description |", "|---|---|---|"]
    rows = {
        name.strip("` "): (default.strip("` "), text.strip())
        for _, name, default, text, _ in (line.split("|") for line in lines[2:])
    }
    fields = {f"CONTRACT_FEEDBACK_{name.upper()}" for kind in (Settings, TimeLimits) for name in kind.model_fields}
    assert fields < rows.keys()
    assert all(text for _, text in rows.values())
    assert rows["CONTRACT_FEEDBACK_WORK_POOL"][0] == "contract-feedback"
    assert rows["OMP_WAIT_POLICY"][0] == "PASSIVE"
    assert "processor" in rows["OMP_WAIT_POLICY"][1]


def test_command_line_imports_nothing_that_sends_telemetry_takes_seconds_or_needs_an_extra() -> None:
    script = "import sys, cli.command_line; print(*{'mlflow', 'prefect', 'reportlab', 'torch'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
