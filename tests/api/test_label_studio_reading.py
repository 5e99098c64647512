"""The thread that reads a project when somebody starts the training in Label Studio."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from api.label_studio_reading import _reading
from tests.api.conftest import Start
from tests.faults import wait_until
from tests.label_studio import TEXT, build_annotation, build_project, build_task, build_webhook, mark
from tests.label_studio_server import answer_tasks, serve

BELL = mark("Bell", "party")
START_TRAINING = {"action": "START_TRAINING", "project": build_project()}
TOKEN = SecretStr("token")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def wait_until_read() -> None:
    wait_until(lambda: not _reading.locked(), 20)


def test_annotation_that_comes_while_its_task_is_being_read_is_not_taken_for_deleted(start: Start) -> None:
    def list_tasks() -> list[dict[str, Any]]:
        webhook = build_webhook(build_annotation(BELL))
        jobs.extend(client.post("/label-studio/webhook", json=webhook).json()["jobs"])
        return [{**build_task(), "annotations": []}]

    jobs = list[str]()
    with serve(answer_tasks(list_tasks)) as url:
        client = start(label_studio_url=url, label_studio_token=TOKEN)
        assert client.post("/label-studio/webhook", json=START_TRAINING).status_code == 202
        wait_until(lambda: bool(jobs), 20)
        wait_until_read()
    later = build_webhook(build_annotation(BELL, second=9))
    assert len(client.post("/label-studio/webhook", json=later).json()["jobs"]) == 1
    [document] = client.get("/documents").json()["items"]
    [annotation] = client.get(f"/documents/{document['id']}/annotations").json()
    assert (annotation["value"], TEXT[annotation["start"] : annotation["end"]]) == ("Bell", "Bell")
