import re
from pathlib import Path

import pytest

import cli
from cli.environment import read_installation_variables


def test_installation_env_means_the_same_to_systemd_compose_and_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (Path(cli.__path__[0]) / "installation.env").read_text().splitlines()
    assignments = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in assignments if not re.fullmatch(r"[A-Z_]+=[A-Za-z0-9]+", line)] == []
    for line in assignments:
        monkeypatch.delenv(line.split("=")[0], raising=False)
    assert read_installation_variables() == dict(line.split("=") for line in assignments)


def test_variable_that_is_set_takes_precedence_over_installation_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert "MALLOC_ARENA_MAX" not in read_installation_variables()
