"""The two kinds of tasks: those that need a server, which are retried after an outage, and those that only compute."""

from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from registry.errors import ConflictError, UnavailableError


def _is_outage(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Tell whether a task may succeed when it is retried; a bug would only fail again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, UnavailableError | ConflictError | OSError)


task_with_neighbours = task(
    cache_policy=NO_CACHE,
    retries=4,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.2,
    retry_condition_fn=_is_outage,
)
computing_task = task(cache_policy=NO_CACHE)
