from pathlib import Path
from typing import NoReturn

import pytest

from flows.task_types import computing_task, task_with_neighbours


class NeverRead(list[int]):
    def __iter__(self) -> NoReturn:
        raise AssertionError("Prefect reads the argument")


@computing_task
def count_values(first: list[int], second: list[int]) -> int:
    return len(first) + len(second)


@task_with_neighbours
def describe_count(values: list[int], count: int) -> str:
    return f"{count} values, {len(values)} of them first"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.mark.usefixtures("flow_environment")
def test_prefect_does_not_search_the_arguments_of_tasks() -> None:
    first, second = NeverRead([1, 2]), NeverRead([3])

    assert describe_count(first, count_values(first, second=second)) == "3 values, 2 of them first"
