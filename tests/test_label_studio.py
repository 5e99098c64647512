"""The way of an annotator through a real Label Studio, connected as `docs/label-studio.md` says."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from cli.installation import ANY_PORTS, LOOPBACK, Stack, answers, reserve_port, run_stack
from demo.client import ContractReviewer
from demo.contract_generator import generate_contract
from intake.label_studio_server import LabelStudioServer
from tests.faults import wait_until

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]
START = PROJECT.parent / "shared" / "bin" / "start-label-studio"
PROGRAM = Path.home() / ".cache" / "contract-feedback" / "label-studio"  # installed once, since it takes minutes
TOKEN = "0123456789abcdef0123456789abcdef01234567"  # the one that START sets
LABELS = {"party", "effective_date", "amount", "governing_law"}


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Label Studio without projects."""
    if not START.exists():
        pytest.skip("../shared/bin/start-label-studio is absent")
    folder = tmp_path_factory.mktemp("label-studio")
    PROGRAM.mkdir(parents=True, exist_ok=True)
    (folder / "venv").symlink_to(PROGRAM)
    with reserve_port(LOOPBACK, 0) as reserved, (folder / "log").open("wb") as log:
        port = reserved.getsockname()[1]
        url = f"http://{LOOPBACK}:{port}"
        with subprocess.Popen([START, folder, str(port)], stdout=log, stderr=log) as process:
            try:
                wait_until(lambda: process.poll() is not None or answers(f"{url}/health")(), 900)
                if not (PROGRAM / "bin" / "label-studio").exists():
                    pytest.skip("Label Studio cannot be installed: its packages are absent")
                assert process.poll() is None, (folder / "log").read_text()
                yield url
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def installation(label_studio: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An installation that knows where Label Studio is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTRACT_FEEDBACK_LABEL_STUDIO_URL", label_studio)
        patch.setenv("CONTRACT_FEEDBACK_LABEL_STUDIO_TOKEN", TOKEN)
        with run_stack(tmp_path_factory.mktemp("installation"), ANY_PORTS) as stack:
            yield stack


@dataclass(frozen=True)
class Annotator:
    """A project of Label Studio, and the installation that is its backend."""

    http: httpx.Client
    project: int
    ours: httpx.Client
    reviewer: ContractReviewer

    def add_task(self, seed: int) -> int:
        """Import a contract, and return its task."""
        answer = self.http.post(f"/api/projects/{self.project}/import", json=[{"text": generate_contract(seed).text}])
        assert answer.status_code == 201, answer.text
        tasks = self.http.get("/api/tasks/", params={"project": self.project, "page_size": 100}).json()["tasks"]
        return max(int(task["id"]) for task in tasks)

    def annotate(self, task: int, seed: int) -> int:
        """Submit all that is to be marked in a contract, and return the annotation."""
        answer = self.http.post(f"/api/tasks/{task}/annotations/", json={"result": mark_all(seed)})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def open(self, task: int) -> list[dict[str, Any]]:
        """Open a task, and return its predictions."""
        predictions: list[dict[str, Any]] = self.http.get(f"/api/tasks/{task}/").json()["predictions"]
        return predictions

    def list_jobs(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = self.ours.get("/jobs").json()["items"]
        return jobs

    def wait_for_jobs(self, count: int) -> list[dict[str, Any]]:
        """Wait until there are so many jobs and all are answered; return them, newest first."""
        wait_until(lambda: len(self.list_jobs()) >= count)
        jobs = [self.reviewer.wait_for_job(job["job_id"]) for job in self.list_jobs()]
        assert len(jobs) == count
        return jobs

    def list_annotations(self, document: str) -> list[str]:
        return [each["value"] for each in self.ours.get(f"/documents/{document}/annotations").json()]


def mark_all(seed: int) -> list[dict[str, Any]]:
    contract = generate_contract(seed)
    return [
        {
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {"start": span.start, "end": span.end, "text": "not the text", "labels": [span.type]},
        }
        for span in contract.spans
        if span.type in LABELS
    ]


@pytest.fixture(scope="module")
def annotator(label_studio: str, installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Annotator:
    """The project that the commands of the guide make and connect."""
    guide = (PROJECT / "docs" / "label-studio.md").read_text()
    script = "\n".join([*re.findall(r"```sh\n(.*?)```", guide, re.DOTALL), 'printf "\\n%s" "$PROJECT"'])
    here = {
        "http://127.0.0.1:8080": label_studio,
        "http://127.0.0.1:8000": installation.api_url,
        ".venv/bin/contract-feedback": f"{sys.executable} -m cli.command_line",
    }
    for shown, actual in here.items():
        assert shown in script
        script = script.replace(shown, actual)
    environment = {**installation.environment, "TOKEN": TOKEN, "PYTHONPATH": str(PROJECT)}
    folder = tmp_path_factory.mktemp("guide")
    done = subprocess.run(
        ["/bin/bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    project = int(done.stdout.rsplit("\n", 1)[1])
    ours = httpx.Client(
        base_url=installation.api_url, headers={"Authorization": f"Bearer {installation.api_key}"}, timeout=60
    )
    http = httpx.Client(base_url=label_studio, headers={"Authorization": f"Token {TOKEN}"}, timeout=60)
    return Annotator(http, project, ours, ContractReviewer(installation.api_url, installation.api_key))


@pytest.fixture(scope="module")
def first(annotator: Annotator) -> tuple[int, int, dict[str, Any]]:
    """A task, its annotation, and the job that it became."""
    task = annotator.add_task(1)
    assert annotator.open(task) == []
    annotation = annotator.annotate(task, 1)
    [job] = annotator.wait_for_jobs(1)
    return task, annotation, job


def test_guide_connects_a_backend_and_one_webhook_that_has_a_key(annotator: Annotator) -> None:
    [backend] = annotator.http.get("/api/ml/", params={"project": annotator.project}).json()
    [webhook] = annotator.http.get("/api/webhooks/", params={"project": annotator.project}).json()
    assert (backend["readable_state"], backend["model_version"]) == ("Connected", "untrained")
    assert webhook["headers"]["Authorization"].startswith("Bearer cf_")


def test_annotation_is_learned_and_the_next_predictions_are_of_the_new_version(
    annotator: Annotator, first: tuple[int, int, dict[str, Any]]
) -> None:
    task, _, job = first
    assert job["outcome"]["decision"] == "promoted"
    for _ in range(2):  # the second time, nothing is added
        [prediction] = annotator.open(task)
        assert prediction["model_version"] == job["outcome"]["challenger"]["version"]
    predicted = {(each["value"]["start"], each["value"]["labels"][0]) for each in prediction["result"]}
    marked = {(each["value"]["start"], each["value"]["labels"][0]) for each in mark_all(1)}
    assert len(predicted & marked) > 0.7 * len(marked)
    text = generate_contract(1).text
    assert all(
        text[each["value"]["start"] : each["value"]["end"]] == each["value"]["text"] for each in prediction["result"]
    )


def test_of_three_quick_updates_the_last_state_is_taught_and_a_deleted_annotation_no_more(
    annotator: Annotator, first: tuple[int, int, dict[str, Any]]
) -> None:
    _, annotation, job = first
    for count in (3, 2, 1):
        annotator.http.patch(f"/api/annotations/{annotation}/", json={"result": mark_all(1)[:count]})
    [document] = job["document_ids"]
    wait_until(lambda: len(annotator.list_annotations(document)) == 1)
    jobs = annotator.wait_for_jobs(len(annotator.list_jobs()))
    assert all(job["outcome"]["decision"] for job in jobs)
    annotator.http.delete(f"/api/annotations/{annotation}/").raise_for_status()
    wait_until(lambda: annotator.list_annotations(document) == [])
    assert len(annotator.list_jobs()) == len(jobs)
    assert document in {each["id"] for each in annotator.ours.get("/documents?state=set_aside").json()["items"]}


def test_start_training_teaches_what_no_webhook_brought_in_one_run(
    annotator: Annotator, first: tuple[int, int, dict[str, Any]]
) -> None:
    [webhook] = annotator.http.get("/api/webhooks/", params={"project": annotator.project}).json()
    annotator.http.patch(f"/api/webhooks/{webhook['id']}/", json={"is_active": False}).raise_for_status()
    before = len(annotator.list_jobs())
    for seed in range(2, 26):  # two pages of Label Studio's API
        annotator.annotate(annotator.add_task(seed), seed)
    assert len(annotator.list_jobs()) == before
    [backend] = annotator.http.get("/api/ml/", params={"project": annotator.project}).json()
    for _ in range(2):
        annotator.http.post(f"/api/ml/{backend['id']}/train").raise_for_status()
        newest, *_ = annotator.wait_for_jobs(before + 1)
    assert (newest["job_type"], len(newest["document_ids"])) == ("training_run", 24)
    assert newest["outcome"]["decision"] == "promoted"


def test_project_is_read_with_a_personal_token_too(label_studio: str, annotator: Annotator) -> None:
    token = annotator.http.post("/api/token/").json()["token"]
    server = LabelStudioServer(label_studio, SecretStr(token))
    assert server.read_project(annotator.project).label_config.startswith("<View>")
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        LabelStudioServer(label_studio, SecretStr("wrong")).read_project(annotator.project)
