"""What a Label Studio may answer that is none, or hangs; a real one is asked in `tests/test_label_studio.py`."""

import json
import time
from io import BufferedIOBase

import pytest
from pydantic import SecretStr

from intake.label_studio_server import LabelStudioServer
from registry.errors import InvalidInputError, UnavailableError
from tests.label_studio import build_annotation, build_task
from tests.label_studio_server import answer_tasks, serve

LEGACY, PERSONAL = SecretStr("token"), SecretStr("a.b.c")


def test_task_that_cannot_be_read_is_left_out() -> None:
    tasks = [{"id": -1}, {**build_task(), "annotations": [build_annotation()]}]
    with serve(answer_tasks(lambda: tasks)) as url:
        [task] = LabelStudioServer(url, LEGACY).list_tasks(3)
    assert [each.id for each in task.annotations] == [1]


def test_server_that_drips_is_given_up_at_the_deadline() -> None:
    def drip(_: str, body: BufferedIOBase) -> None:
        while True:
            body.write(b" ")
            time.sleep(0.05)

    with serve(drip) as url, pytest.raises(UnavailableError, match=r"within 0\.5 s"):
        LabelStudioServer(url, LEGACY, page_seconds=0.5).read_project(3)


@pytest.mark.parametrize(
    "answer", ["", "secret", [], {}, {"tasks": ["secret"], "total": 1}, {"tasks": [], "total": "n"}]
)
@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_answer_that_is_not_label_studio_s_is_refused_without_its_content(answer: object, token: SecretStr) -> None:
    content = json.dumps(answer).encode() if answer else b"{"
    with serve(lambda _, body: body.write(content)) as url:
        for ask in (lambda server: server.read_project(3), lambda server: list(server.list_tasks(3))):
            with pytest.raises(InvalidInputError, match="does not answer as Label Studio") as raised:
                ask(LabelStudioServer(url, token))
            assert "secret" not in str(raised.value)
