"""A Label Studio server's API: a project, and its tasks with their annotations, page by page."""

import logging
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
from pydantic import SecretStr, ValidationError

from intake.label_studio_requests import AnnotatedTask, Project

_PAGE = 20  # tasks, each with up to a million characters
_SECONDS = 60

_logger = logging.getLogger(__name__)


class LabelStudioServer:
    """Reads with a user's token, personal or legacy; each method raises httpx.HTTPError.

    A personal token is exchanged before each request for one that is valid for some minutes.
    """

    def __init__(self, url: str, token: SecretStr) -> None:
        self._http, self._token = httpx.Client(base_url=url, timeout=_SECONDS), token.get_secret_value()

    def read_project(self, project_id: int) -> Project:
        """Return a project."""
        return Project.model_validate(self._get(f"/api/projects/{project_id}/"))

    def list_tasks(self, project_id: int) -> Iterator[AnnotatedTask]:
        """Yield the tasks of a project; one that cannot be read is logged and left out."""
        seen = 0
        for page in count(1):
            answer = self._get("/api/tasks/", project=project_id, page=page, page_size=_PAGE, fields="all")
            for task in answer["tasks"]:
                try:
                    yield AnnotatedTask.model_validate(task)
                except ValidationError as error:
                    problems = error.errors(include_input=False, include_url=False)
                    _logger.warning("Task %s of project %d is left out: %s", task.get("id"), project_id, problems)
            seen += len(answer["tasks"])
            if seen >= answer["total"] or not answer["tasks"]:
                return

    def _get(self, path: str, **parameters: str | int) -> Any:
        answer = self._http.get(path, params=parameters, headers={"Authorization": self._authorize()})
        return answer.raise_for_status().json()

    def _authorize(self) -> str:
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        answer = self._http.post("/api/token/refresh/", json={"refresh": self._token})
        return f"Bearer {answer.raise_for_status().json()['access']}"
