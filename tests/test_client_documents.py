"""The commands and programs of docs/client.md and docs/formats.md run, in order, against a whole installation."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.installation import Stack
from demo.contract_generator import generate_contract

PROJECT = Path(__file__).parents[1]
SUPPLY = "SUPPLY AGREEMENT\n\nTavlux Ltd supplies paper to Marcor plc.\n"
SERVICE = "SERVICE AGREEMENT\n\nNorvex Ltd maintains the lifts of Quinro plc.\n"


def read_block(name: str, language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", (PROJECT / "docs" / name).read_text(), re.DOTALL)
    return str(block)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the documents name."""
    (tmp_path / "supply.txt").write_text(SUPPLY)
    (tmp_path / "service.txt").write_text(SERVICE)
    start = SERVICE.index("Norvex Ltd")
    (tmp_path / "corrected.json").write_text(
        json.dumps([{"type": "party", "value": "Norvex Ltd", "start": start, "end": start + 10}])
    )
    rows = []
    for seed in range(700, 706):
        contract = generate_contract(seed)
        rows.append({"text": contract.text, "label": [(span.start, span.end, span.type) for span in contract.spans]})
    (tmp_path / "contracts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def run(stack: Stack, folder: Path, *command: str) -> str:
    program = folder / "bin" / "contract-feedback"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cli.command_line "$@"\n')
    program.chmod(0o700)
    environment = os.environ | {
        "CONTRACT_FEEDBACK_API_URL": stack.api_url,
        "CONTRACT_FEEDBACK_API_KEY": stack.api_key,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_contract_is_taught_by_the_commands_of_the_document(stack: Stack, folder: Path) -> None:
    printed = run(stack, folder, "bash", "-euc", read_block("client.md", "sh"))
    assert "completed 100%  Promoted" in printed


@pytest.mark.slow
def test_contract_is_taught_by_the_program_of_the_document(stack: Stack, folder: Path) -> None:
    printed = run(stack, folder, sys.executable, "-c", read_block("client.md", "python"))
    assert "JobStatus.COMPLETED Promoted" in printed or "completed Promoted" in printed
    assert "409 Annotation" in printed


@pytest.mark.slow
def test_file_is_learned_in_one_run_and_exported_by_the_commands_of_the_document(stack: Stack, folder: Path) -> None:
    printed = run(stack, folder, "bash", "-euc", read_block("formats.md", "sh"))
    assert "completed 100%  Promoted" in printed
    assert "B-governing_law" in (folder / "contracts.conll").read_text()
