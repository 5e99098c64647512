"""The commands that the documentation names exist; `tests/test_wheel.py` runs the quick start."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.command_line import app

PROJECT = Path(__file__).parents[1]
DOCUMENTS = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    *(
        PROJECT / "docs" / f"{name}.md"
        for name in ("benchmarks", "client", "deployment", "formats", "label-studio", "security")
    ),
]
TEXT = "\n".join(document.read_text() for document in DOCUMENTS)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make (demo|test|test-all|serve|check|audit|lock)\b", TEXT))))
def test_make_target_of_the_documentation_exists(target: str) -> None:
    planned = subprocess.run(["make", "-n", target], cwd=PROJECT, capture_output=True, text=True, check=True)  # noqa: S607
    assert planned.stdout.strip()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`contract-feedback ([\w-]+)", TEXT))))
def test_command_of_the_documentation_exists(command: str) -> None:
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (benchmarks\.\w+)", TEXT))))
def test_benchmark_of_the_documentation_exists(module: str) -> None:
    assert find_spec(module)


def test_service_without_a_key_refuses_to_listen_beyond_loopback(tmp_path: Path) -> None:
    environment = {"CONTRACT_FEEDBACK_DATABASE_URL": f"sqlite:///{tmp_path}/test.db"}
    refused = subprocess.run(
        [sys.executable, "-m", "cli.command_line", "api", "--host", "0.0.0.0"],  # noqa: S104
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "Make a key" in refused.stderr
