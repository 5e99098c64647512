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


def test_each_hundred_new_annotations_are_a_job_and_one_project_is_read_at_a_time(start: Start) -> None:
    def list_tasks() -> list[dict[str, Any]]:
        answers.append(client.post("/label-studio/webhook", json=START_TRAINING))
        return [
            {**build_task(f"{TEXT} {number}", number), "annotations": [build_annotation(BELL, number=number)]}
            for number in range(101)
        ]

    answers = list[Any]()
    with serve(answer_tasks(list_tasks)) as url:
        client = start(label_studio_url=url, label_studio_token=TOKEN)
        assert client.post("/label-studio/webhook", json=START_TRAINING).status_code == 202
        wait_until(lambda: len(client.get("/jobs").json()["items"]) == 2, 30)
        wait_until_read()
    assert [answer.status_code for answer in answers] == [409]
    assert "is being read" in answers[0].json()["detail"]
    jobs = client.get("/jobs").json()["items"]
    assert sorted(len(job["document_ids"]) for job in jobs) == [1, 100]


def test_project_that_cannot_be_read_is_logged_and_may_be_read_again(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    for url in ("http://127.0.0.1:9", "http://a:99999"):
        client = start(label_studio_url=url, label_studio_token=TOKEN)
        caplog.clear()
        assert client.post("/label-studio/webhook", json=START_TRAINING).status_code == 202
        wait_until_read()
        assert "cannot be read" in caplog.text


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
