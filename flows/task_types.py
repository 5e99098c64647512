"""The two kinds of tasks: those that need a server, which are retried after an outage, and those that only compute."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import opaque

from registry.errors import ConflictError, NoChampionError, UnavailableError, UnusableModelError

_P = ParamSpec("_P")
_R = TypeVar("_R")


class OpaqueTask(Task[_P, _R]):
    """A task whose arguments Prefect takes as they are.

    By default, Prefect searches each argument twice for futures, in all it contains: a second in each run for the
    measurements in two models.
    """

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:  # type: ignore[override]
        """Run the task and return its result."""
        by_name = {name: opaque(value) for name, value in kwargs.items()}
        return super().__call__(*map(opaque, args), **by_name)  # type: ignore[arg-type]


def task_with_neighbours(function: Callable[_P, _R]) -> OpaqueTask[_P, _R]:
    """Make a task of a function that needs the database, MLflow or the document store."""
    return OpaqueTask(
        function,
        cache_policy=NO_CACHE,
        retries=4,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.2,
        retry_condition_fn=_is_outage,
    )


def computing_task(function: Callable[_P, _R]) -> OpaqueTask[_P, _R]:
    """Make a task of a function that only computes."""
    return OpaqueTask(function, cache_policy=NO_CACHE)


def _is_outage(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Tell whether a task may succeed when it is retried; a bug would only fail again, and so would a broken model."""
    error = state.result(raise_on_failure=False)
    needs_a_person = isinstance(error, NoChampionError | UnusableModelError)
    return isinstance(error, UnavailableError | ConflictError | OSError) and not needs_a_person
