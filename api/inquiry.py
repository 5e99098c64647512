"""Questions to other parts of the installation that hold up nobody: is the database there, how many workers are."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread

from registry.errors import ContractFeedbackError, build_outage_error

_PATIENCE_SECONDS = 3.0

_logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Reply(Generic[_Answer]):
    """An answer or, without one, the problem in one sentence."""

    answer: _Answer | None = None
    problem: str | None = None


class Inquiry(Generic[_Answer]):
    """Asks one question in a thread, once for all who want to know, and keeps the reply for some seconds.

    A question that hangs occupies one thread until it returns, and is not asked again before.
    """

    def __init__(self, name: str, question: Callable[[], _Answer], kept_seconds: float) -> None:
        self._name, self._question, self._kept_seconds = name, question, kept_seconds
        self._threads = CapacityLimiter(1)
        self._asking: asyncio.Task[Reply[_Answer]] | None = None
        self._asked_at = 0.0

    async def ask(self) -> Reply[_Answer]:
        """Return the reply; three seconds after the question was asked, that there is no answer."""
        if self._asking is None or (self._asking.done() and self._seconds_since_asked() > self._kept_seconds):
            self._asked_at = time.monotonic()
            run = to_thread.run_sync(self._reply, abandon_on_cancel=True, limiter=self._threads)
            self._asking = asyncio.ensure_future(run)
        patience = max(0.0, _PATIENCE_SECONDS - self._seconds_since_asked())
        done, _ = await asyncio.wait({self._asking}, timeout=patience)
        return self._asking.result() if done else Reply(problem=str(build_outage_error(self._name)))

    def _seconds_since_asked(self) -> float:
        return time.monotonic() - self._asked_at

    def _reply(self) -> Reply[_Answer]:
        try:
            return Reply(self._question())
        except ContractFeedbackError as error:
            return Reply(problem=str(error))
        except Exception as error:  # whatever is wrong with one part, the others are reported
            _logger.exception("Asking a part of the installation failed: %s", self._name)
            return Reply(problem=f"{self._name}: {type(error).__name__}; the log of the API has the trace")
