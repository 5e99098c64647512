"""The wheel in an environment that has its requirements without any extra, and no checkout of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement
from prefect.client.orchestration import SyncPrefectClient

from cli.installation import LOOPBACK, answers, reserve_port
from demo.client import ContractReviewer
from demo.contract_generator import generate_contract
from tests.faults import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
ENVIRONMENT["PREFECT_API_URL"] = "http://127.0.0.1:1/api"  # nothing is there; without it Prefect starts a server


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `contract-feedback` of a wheel that is built from a copy of the project and installed."""
    folder = tmp_path_factory.mktemp("wheel")
    not_packaged = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "benchmarks", "docs", "tests")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=not_packaged)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source"], check=True)
    shutil.rmtree(folder / "source")
    venv.create(folder / "venv")
    [wheel], python = folder.glob("*.whl"), folder / "venv/bin/python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    [site] = folder.glob("venv/lib/python*/site-packages")
    link_requirements(site)
    return folder / "venv/bin/contract-feedback"


def link_requirements(site: Path) -> None:
    """Link what the wheel in `site` requires from the running environment: to install it again would take minutes."""
    [wheel] = distributions(path=[str(site)])
    for name in find_requirements(wheel):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(installed.locate_file(top)))


def find_requirements(wheel: Distribution) -> set[str]:
    """Return the names of all distributions that one without extras requires, directly or not."""
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in wheel.requires or []]
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {(requirement.name, extra) for extra in ("", *requirement.extras)} - seen:
            seen.add(wanted)
            waiting += [(each, wanted[1]) for each in distribution(wanted[0]).requires or []]
    return {name for name, _ in seen}


@contextmanager
def started(*command: str | Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()


def test_installed_api_answers_a_request_with_an_added_key(program: Path, tmp_path: Path) -> None:
    added = subprocess.run(
        [program, "add-key", "ana"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    headers = {"Authorization": f"Bearer {added.stdout.strip()}"}
    with reserve_port(LOOPBACK, 0) as reserved:
        url = "http://{}:{}".format(*reserved.getsockname())
        with started(program, "api", "--port", url.rsplit(":", 1)[1], folder=tmp_path):
            wait_until(answers(f"{url}/health"))
            assert httpx.get(f"{url}/documents", headers=headers).json()["total"] == 0
            assert httpx.get(f"{url}/documents").status_code == 401


def test_demo_without_its_extra_says_what_to_install(program: Path, tmp_path: Path) -> None:
    demo = subprocess.run([program, "demo"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert demo.returncode == 2
    assert "pip install 'contract-feedback[demo]'" in demo.stderr
    assert "Traceback" not in demo.stderr
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Served:
    """What `contract-feedback serve` printed in its working folder."""

    folder: Path
    url: str
    prefect_url: str
    mlflow_url: str
    key: str


@pytest.fixture(scope="module")
def served(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    ports = ["--port", "0", "--prefect-port", "0", "--mlflow-port", "0"]
    with started(program, "serve", *ports, folder=folder) as serve:
        assert serve.stdout
        printed = ""
        while "Ctrl-C" not in printed:
            line = serve.stdout.readline()
            assert line, printed
            printed += line
        shown = dict(re.findall(r"^(API|Prefect|MLflow|Key) +(\S+)", printed, re.MULTILINE))
        yield Served(folder, shown["API"].removesuffix("/docs"), shown["Prefect"], shown["MLflow"], shown["Key"])
    assert serve.returncode == 0


def test_installed_serve_starts_everything_and_deploys(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    wait_until(lambda: bool(httpx.get(f"{served.url}/system-status", headers=headers, timeout=30).json()["ok"]))
    with SyncPrefectClient(f"{served.prefect_url}/api") as prefect:
        assert prefect.read_deployment_by_name("learn-from-feedback/feedback").status == "READY"


def test_quick_start_of_the_readme_gives_the_answers_that_it_shows(served: Served) -> None:
    section = (ROOT / "README.md").read_text().split("## Quick start")[1].split("\n## ")[0]
    blocks = re.findall(r"```(sh|json)\n(.*?)```", section, re.DOTALL)
    assert blocks.pop(0) == ("sh", "make serve\n")
    commands = [block for language, block in blocks if language == "sh"]
    shown = {number: json.loads(block) for number, (language, block) in enumerate(blocks) if language == "json"}
    script = "echo '<end>'\n".join([*commands, ""]).replace("http://127.0.0.1:8000", served.url)
    done = subprocess.run(
        ["/bin/bash", "-e", "-c", script], cwd=served.folder, capture_output=True, text=True, timeout=180, check=True
    )
    assert shown
    outputs = iter(done.stdout.split("<end>\n"))
    for number, (language, _) in enumerate(blocks):
        if language == "sh":
            output = next(outputs)
        else:
            check_same_answer(json.loads(output), shown[number])


def test_champion_is_loaded_by_mlflow_alone_where_only_the_package_is_installed(
    program: Path, served: Served, tmp_path: Path
) -> None:
    contract = generate_contract(0)
    client = ContractReviewer(served.url, served.key)
    document = client.upload(contract.filename, contract.pdf, contract.text, contract.spans)
    assert client.wait_for_job(client.feed_back(document))["outcome"]["decision"] == "promoted"
    (tmp_path / "texts.json").write_text(json.dumps({"inputs": [contract.text, "Nada."]}))
    uri, python = "models:/contract-entities@champion", program.parent / "python"
    environment = {**ENVIRONMENT, "MLFLOW_TRACKING_URI": served.mlflow_url, "HF_HUB_OFFLINE": "1"}

    def run(*command: str) -> str:
        ran = subprocess.run(
            [python, *command], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return ran.stdout

    load = "import json, sys, mlflow; texts = json.load(open('texts.json'))['inputs']; "
    load += f"print(json.dumps(mlflow.pyfunc.load_model('{uri}').predict(texts)))"
    found = json.loads(run("-c", load))
    command = ["-m", "mlflow", "models", "predict", "--env-manager", "local", "--content-type", "json"]
    predicted = run(*command, "--model-uri", uri, "--input-path", "texts.json")
    assert json.loads(predicted) == {"predictions": found}
    served_entities = client.extract(document.id)[1]
    assert {(each["type"], each["start"], each["end"]) for each in found[0]} == {
        (entity.type, entity.start, entity.end) for entity in served_entities
    }
    assert found[0]
    assert found[1] == []


def check_same_answer(answer: dict[str, Any], shown: dict[str, Any]) -> None:
    """Check that only the document's id differs, and each confidence by at most 0.1: machines round differently."""
    confidences = [[entity.pop("confidence") for entity in each["entities"]] for each in (answer, shown)]
    assert confidences[0] == pytest.approx(confidences[1], abs=0.1)
    assert {**answer, "document_id": "…"} == shown
