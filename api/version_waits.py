"""Requests that wait until this process serves a version of the model."""

import asyncio
from collections.abc import Set
from dataclasses import dataclass, field
from datetime import timedelta

from anyio import CapacityLimiter, move_on_after, to_thread

from feedback.time_limits import utc_now
from registry.errors import NotFoundError, UnavailableError
from registry.models import ModelRegistry
from registry.outcome import Decision
from registry.served_model import ServedModel

_LOOK_SECONDS = 0.2  # between two questions to MLflow
_MOST_EXPLAINED = 20  # versions, in one look
_PROMOTION = timedelta(seconds=5)  # a promotion takes two steps, less than this apart


@dataclass(eq=False)
class _Wait:
    version: int
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class VersionWaits:
    """Lets requests wait; one task asks MLflow for all of them.

    A request that waits holds nothing but its socket, as a stream of events does.
    """

    def __init__(self, served: ServedModel, registry: ModelRegistry) -> None:
        self._served, self._registry = served, registry
        self._waits = set[_Wait]()
        self._thread = CapacityLimiter(1)
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def close(self) -> None:
        """End all waits."""
        self._is_closed = True
        for wait in self._waits:
            wait.is_over.set()

    async def wait(self, version: int, seconds: float) -> None:
        """Return when this version or a newer one serves, when neither will, or after so many seconds."""
        if self._is_closed or self._is_served(version):
            return
        wait = _Wait(version)
        self._waits.add(wait)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_after_all())
        try:
            with move_on_after(seconds):
                await wait.is_over.wait()
        finally:
            self._waits.discard(wait)

    async def _look_after_all(self) -> None:
        while self._waits:
            versions = {wait.version for wait in self._waits}
            over = await to_thread.run_sync(self._find_over, versions, limiter=self._thread)
            for wait in self._waits:
                if wait.version in over:
                    wait.is_over.set()
            await asyncio.sleep(_LOOK_SECONDS)

    def _find_over(self, versions: Set[int]) -> set[int]:
        """Return the versions for which nobody has to wait any more."""
        try:
            self._served.get()
            over = {version for version in versions if self._is_served(version)}
            others = sorted(versions - over)[:_MOST_EXPLAINED]
            return over | {version for version in others if self.explain(version)}
        except UnavailableError:
            return set()

    def _is_served(self, version: int) -> bool:
        loaded = self._served.loaded
        return loaded is not None and int(loaded.version) >= version

    def explain(self, version: int) -> str | None:
        """Say why a version will not serve, None if it may; raises UnavailableError if MLflow does not answer."""
        try:
            found, champion = self._registry.get_version(str(version)), self._registry.find_alias()
        except NotFoundError:
            return None
        if found.promoted_at is None:
            is_refused = found.decision not in {None, Decision.PROMOTED}
            return f"version {version} was not promoted ({found.reason.rstrip('.')})" if is_refused else None
        if (champion and int(champion) >= version) or utc_now() - found.promoted_at < _PROMOTION:
            return None
        return f"version {version} was promoted, and version {champion or 'none'} is the champion now"
