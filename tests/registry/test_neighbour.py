"""A server that hangs is asked by one request at a time, and not by each."""

import threading

import pytest

from registry.errors import UnavailableError
from registry.neighbour import Neighbour


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def miss(neighbour: Neighbour, clock: Clock, seconds: float) -> bool:
    """Ask without getting an answer in so many seconds; return whether the server was asked."""

    def ask() -> None:
        with neighbour.ask():
            clock.now += seconds
            raise UnavailableError("asked")

    with pytest.raises(UnavailableError) as missed:
        ask()
    return str(missed.value) == "asked"


def test_server_that_hangs_is_asked_again_after_a_pause_and_always_once_it_answers() -> None:
    clock = Clock()
    neighbour = Neighbour("MLflow", clock)
    assert miss(neighbour, clock, 10)
    assert not miss(neighbour, clock, 0)
    clock.now += 5
    assert miss(neighbour, clock, 10)
    assert not miss(neighbour, clock, 0)
    clock.now += 5
    for _ in range(2):
        with neighbour.ask():
            pass


def test_server_that_refuses_at_once_is_asked_each_time() -> None:
    clock = Clock()
    neighbour = Neighbour("MLflow", clock)
    assert all(miss(neighbour, clock, 0.5) for _ in range(3))


def test_one_request_asks_again_while_the_others_are_refused() -> None:
    clock = Clock()
    neighbour = Neighbour("MLflow", clock)
    miss(neighbour, clock, 10)
    clock.now += 5
    refused: list[bool] = []
    with neighbour.ask():
        other = threading.Thread(target=lambda: refused.append(not miss(neighbour, clock, 0)))
        other.start()
        other.join()
    assert refused == [True]
