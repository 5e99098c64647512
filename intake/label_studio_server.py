"""A Label Studio server's API: a project, and its tasks with their annotations, page by page."""

import asyncio
import logging
import time
from collections.abc import Iterator
from itertools import count
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from intake.label_studio_requests import AnnotatedTask, Project
from registry.errors import InvalidInputError, UnavailableError

_PAGE = 20  # tasks, each with up to a million characters
_PAGE_SECONDS, _PROJECT_SECONDS = 60, 3_600

_Answer = TypeVar("_Answer", bound=BaseModel)
_logger = logging.getLogger(__name__)


class _Access(BaseModel):
    access: str


class _Page(BaseModel):
    tasks: list[dict[str, Any]]
    total: int


class LabelStudioServer:
    """Reads with a user's token, personal or legacy.

    A personal token is exchanged before each request for one that is valid for some minutes. Each method raises
    httpx.HTTPError and httpx.InvalidURL, UnavailableError for a server that takes too long, however it keeps the
    connection busy, and InvalidInputError for an answer that is not Label Studio's.
    """

    def __init__(self, url: str, token: SecretStr, page_seconds: float = _PAGE_SECONDS) -> None:
        self._url, self._token, self._page_seconds = url, token.get_secret_value(), page_seconds

    def read_project(self, project_id: int) -> Project:
        """Return a project."""
        return self._get(Project, f"/api/projects/{project_id}/")

    def list_tasks(self, project_id: int) -> Iterator[AnnotatedTask]:
        """Yield the tasks of a project, for an hour at most; one that cannot be read is logged and left out."""
        seen, until = 0, time.monotonic() + _PROJECT_SECONDS
        for page in count(1):
            if time.monotonic() > until:
                raise UnavailableError(f"It was not read within {_PROJECT_SECONDS} s: start again to read the rest")
            answer = self._get(_Page, "/api/tasks/", project=project_id, page=page, page_size=_PAGE, fields="all")
            for task in answer.tasks:
                try:
                    yield AnnotatedTask.model_validate(task)
                except ValidationError as error:
                    problems = _describe(error)
                    _logger.warning("Task %s of project %d is left out: %s", task.get("id"), project_id, problems)
            seen += len(answer.tasks)
            if seen >= answer.total or not answer.tasks:
                return

    def _get(self, kind: type[_Answer], path: str, **parameters: str | int) -> _Answer:
        try:
            return asyncio.run(self._get_in_time(kind, path, parameters))
        except TimeoutError as error:
            raise UnavailableError(f"Label Studio did not answer within {self._page_seconds} s") from error

    async def _get_in_time(self, kind: type[_Answer], path: str, parameters: dict[str, str | int]) -> _Answer:
        """Return an answer; asynchronous since only so a deadline holds while the server sends a byte now and then."""
        seconds = self._page_seconds
        async with asyncio.timeout(seconds), httpx.AsyncClient(base_url=self._url, timeout=seconds) as http:
            headers = {"Authorization": await self._authorize(http)}
            return _read(kind, await http.get(path, params=parameters, headers=headers))

    async def _authorize(self, http: httpx.AsyncClient) -> str:
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        answer = _read(_Access, await http.post("/api/token/refresh/", json={"refresh": self._token}))
        return f"Bearer {answer.access}"


def _read(kind: type[_Answer], answer: httpx.Response) -> _Answer:
    try:
        return kind.model_validate_json(answer.raise_for_status().content)
    except ValidationError as error:
        problems = _describe(error)
        raise InvalidInputError(f"{answer.url.path} does not answer as Label Studio does: {problems}") from None


def _describe(error: ValidationError) -> Any:
    """Return what is wrong without the input, which may be a contract or a token."""
    return error.errors(include_input=False, include_url=False, include_context=False)
