"""Servers that the API asks, none of which may hold up the requests that do not need it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from registry.errors import UnavailableError, build_outage_error

_PATIENCE_SECONDS, _PAUSE_SECONDS = 1.0, 5.0


class Neighbour:
    """A server that hangs is asked again by one request at a time, each five seconds after the last answer is missed.

    `clock` returns monotonic seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = name, clock
        self._hangs, self._paused_until = False, 0.0
        self._asking_again = Lock()

    @contextmanager
    def ask(self) -> Iterator[None]:
        """Ask the server in this block, which raises UnavailableError if it gets no answer.

        If that took a second or longer, the server hangs: other blocks raise UnavailableError at once.
        """
        asks_again = self._hangs
        if asks_again and (self._clock() < self._paused_until or not self._asking_again.acquire(blocking=False)):
            raise build_outage_error(self._name)
        started, hangs = self._clock(), False
        try:
            yield
        except UnavailableError:
            hangs = self._clock() - started >= _PATIENCE_SECONDS
            raise
        finally:
            self._hangs, self._paused_until = hangs, self._clock() + _PAUSE_SECONDS
            if asks_again:
                self._asking_again.release()
