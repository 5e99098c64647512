import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROBE = Path(__file__).parent / "probes" / "logging_process.py"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) +\S+ ")


def read_log(folder: Path, **variables: str) -> list[str]:
    """Return the lines that a process logs."""
    settings = {f"CONTRACT_FEEDBACK_{name}": value for name, value in variables.items()}
    environment = {**os.environ, "PREFECT_LOGGING_TO_API_ENABLED": "false", **settings}
    command = [sys.executable, str(PROBE)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr.splitlines()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return read_log(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    lines = read_log(tmp_path_factory.mktemp("json"), LOG_FORMAT="json", LOG_LEVEL="DEBUG")
    return [json.loads(line) for line in lines]


def test_each_line_of_any_library_is_an_object_with_time_level_logger_and_ids(objects: list[dict[str, Any]]) -> None:
    assert [(line["level"], line["logger"]) for line in objects] == [
        ("INFO", "api.routes"), ("DEBUG", "api.routes"), ("WARNING", "mlflow.store"), ("WARNING", "alembic.runtime"),
        ("INFO", "uvicorn.error"), ("INFO", "prefect.flow_runs"), ("WARNING", "py.warnings"),
        ("CRITICAL", "registry.logs"),
    ]  # fmt: skip
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in objects)
    assert {(line["request_id"], line["job_id"]) for line in objects} == {("request-1", "job-1,job-2")}
    assert [line["flow_run_id"] for line in objects if "flow_run_id" in line] == ["run-1"]


def test_line_break_and_trace_are_within_their_object(objects: list[dict[str, Any]]) -> None:
    assert objects[0]["message"].startswith("key of ana\n2026")
    assert objects[-1]["traceback"].startswith("Traceback (most recent call last):\n")


def test_what_libraries_add_to_a_record_is_not_shown(text: list[str], objects: list[dict[str, Any]]) -> None:
    assert any("from a flow" in line for line in text)
    assert not any("cf_secret" in str(line) for line in (*text, *objects))


def test_text_has_the_same_lines_and_no_value_in_it_can_look_like_one(text: list[str]) -> None:
    begun = [line for line in text if LINE.match(line)]
    assert len(begun) == 7
    assert all(line.startswith("    ") for line in text if line not in begun)
    assert "[request_id=request-1 job_id=job-1,job-2] key of ana\\n2026-01-01" in begun[0]
    assert text[-1] == "    2026-01-01T00:00:00.000Z INFO    api forged"


def test_nothing_below_the_level_of_the_settings_is_logged(tmp_path: Path) -> None:
    lines = read_log(tmp_path, LOG_LEVEL="ERROR")
    assert [line.split()[1] for line in lines if LINE.match(line)] == ["CRITICAL"]
