"""The model that serves extractions: the current champion, kept in memory."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from embeddinggemma_feasibility.tagger import Tagger
from registry.errors import ContractFeedbackError, UnavailableError
from registry.models import Champion, ModelRegistry

_PAUSE_SECONDS = 5.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A tagger and its version; each response uses only one of these.

    `warning` says why it may not be the champion, None if it is.
    """

    champion: Champion
    tagger: Tagger
    warning: str | None = None

    @property
    def version(self) -> str:
        """The number of the version."""
        return self.champion.version


class ServedModel:
    """Loads the champion when it is first needed, and again when it has changed.

    If MLflow does not answer, or the champion cannot be loaded, the model loaded last serves, and MLflow is asked again
    after five seconds: requests do not wait for it meanwhile. `clock` returns monotonic seconds.
    """

    def __init__(self, registry: ModelRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry, self._clock = registry, clock
        self._loading = threading.Lock()
        self._loaded: LoadedModel | None = None
        self._error: ContractFeedbackError | None = None
        self._paused_until = 0.0

    def get(self) -> LoadedModel | None:
        """Return the champion, or the model loaded last if that cannot be had; None if there is no champion.

        Raises UnavailableError if no model is loaded and none can be.
        """
        if self._error:
            if self._clock() >= self._paused_until and self._loading.acquire(blocking=False):
                try:
                    self._update()
                finally:
                    self._loading.release()
        elif not self._is_current():
            with self._loading:
                if not self._error:  # another thread may have met one
                    self._update()
        if self._error and self._loaded is None:
            raise type(self._error)(str(self._error))  # a new one: each raise adds its frames to an exception
        return self._loaded

    def find_version(self) -> str | None:
        """Return the version that `get` would return, without loading it; raises UnavailableError as `get` does."""
        if self._error and self._loaded:
            return self._loaded.version
        try:
            return self._registry.find_champion()
        except UnavailableError as error:
            if self._loaded is None:
                raise
            self._pause(error)
            return self._loaded.version

    @property
    def loaded(self) -> LoadedModel | None:
        """The model that was loaded last; None if there was no champion."""
        return self._loaded

    def ask_again(self) -> None:
        """Ask MLflow with the next request, since somebody has changed the champion."""
        self._paused_until = 0.0

    def _is_current(self) -> bool:
        """Tell whether the champion is loaded; if MLflow does not answer, what is loaded serves."""
        try:
            return self._loaded is not None and self._loaded.champion == self._registry.find_champion_run()
        except UnavailableError as error:
            self._pause(error)
            return True

    def _update(self) -> None:
        try:
            champion = self._registry.find_champion_run()
            if champion is None:  # before the first version, or since what is left teaches none
                self._loaded = None
            elif self._loaded and self._loaded.champion == champion:
                self._loaded = replace(self._loaded, warning=None)
            else:
                self._loaded = LoadedModel(champion, self._registry.load_tagger(champion.version))
            self._error = None
        except ContractFeedbackError as error:
            self._pause(error)

    def _pause(self, error: ContractFeedbackError) -> None:
        if str(error) != str(self._error):
            _logger.warning("%s; version %s serves", error, self._loaded.version if self._loaded else "no")
        self._error, self._paused_until = error, self._clock() + _PAUSE_SECONDS
        if self._loaded:
            warning = f"{error}. Version {self._loaded.version}, which was loaded before, serves."
            self._loaded = replace(self._loaded, warning=warning)
