"""The encoding of uploaded documents, in a background thread, so that their first extraction finds it cached."""

import logging
import os
import threading
from collections import deque

from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.representations import hash_text
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig
from registry.errors import UnavailableError
from registry.served_model import ServedModel
from registry.settings import Settings

LONG_TEXT = 100_000  # characters; an extraction does not encode more itself, which takes ten seconds on two cores
MAX_WAITING = 100  # 200 MB of text at most, if each has a million characters of Latin script
_NICENESS = 5  # a third of the weight of the threads that answer requests
_STOP_SECONDS = 5

_logger = logging.getLogger(__name__)


class EncodingQueue:
    """Encodes texts one after another, as the served model does, into the cache.

    A text that it leaves out, because too many wait or for an error, is encoded by its first extraction, or added again
    by that if it is long.
    """

    def __init__(self, settings: Settings, served: ServedModel, cache: DiskCache) -> None:
        self._settings, self._served, self._cache = settings, served, cache
        self._texts: deque[str] = deque()
        self._changed = threading.Condition()
        self._failed: str | None = None
        self._current: str | None = None
        self._stopped = False
        self._extractions = threading.Semaphore(os.cpu_count() or 1)
        self._thread = threading.Thread(target=self._run, name="encoding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the text that is being encoded; return after five seconds even if that takes longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(_STOP_SECONDS)

    def add(self, text: str) -> None:
        """Have a text encoded soon, unless as many wait as are allowed to."""
        with self._changed:
            if text in self._texts:
                return
            if len(self._texts) == MAX_WAITING:
                _logger.warning("%d texts wait to be encoded: one more is left to its first extraction", MAX_WAITING)
                return
            self._texts.append(text)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """The number of texts that wait."""
        return len(self._texts)

    def encode(self, text: str, tagger: Tagger) -> bool:
        """Return when a text is encoded as this tagger needs it, and whether that is new; use as many cores as exist.

        Raises UnavailableError for one that is long, and has it encoded next: a reader waits for it.
        """
        if tagger.cache_key(text) in self._cache:
            return False
        if len(text) <= LONG_TEXT:
            with self._extractions:
                tagger.represent(text, self._cache)
        elif text == self._failed:  # its extraction encodes it, and fails with the cause
            self._failed = None
        else:
            self._add_first(text)
            raise UnavailableError(
                f"This document of {len(text):,} characters is being read in the background: try again in a minute"
            )
        return True

    def forget(self, text: str) -> None:
        """Delete what is cached of a text, whose document was deleted, and encode it no more.

        Raises UnavailableError if the cache cannot be changed.
        """
        with self._changed:
            if text in self._texts:
                self._texts.remove(text)
            if text == self._current:
                self._current = None
        try:
            self._cache.delete(hash_text(text))
        except OSError as error:
            raise UnavailableError(f"The document is deleted, but not what is cached of it: {error}") from error

    def _add_first(self, text: str) -> None:
        with self._changed:
            if text in self._texts:
                self._texts.remove(text)
            elif len(self._texts) == MAX_WAITING:
                self._texts.pop()
            self._texts.appendleft(text)
            self._changed.notify()

    def _take(self) -> str | None:
        """Return the next text, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._texts or self._stopped)
            self._current = None if self._stopped else self._texts.popleft()
            return self._current

    def _run(self) -> None:
        os.nice(_NICENESS)  # on Linux, of this thread and of those that torch starts for it
        while (text := self._take()) is not None:
            try:
                self._get_tagger().represent(text, self._cache)
                if self._current is None:  # its document was deleted meanwhile
                    self._cache.delete(hash_text(text))
            except UnavailableError as error:
                _logger.warning("A text is left to its first extraction: %s", error)
            except Exception:
                self._failed = text
                _logger.exception("Encoding a text failed; it is left to its first extraction")

    def _get_tagger(self) -> Tagger:
        """Return the served model or, before the first, a tagger without types: it encodes as the first model will."""
        served = self._served.get()
        return served.tagger if served else Tagger(load_encoder(self._settings.encoder), (), TrainingConfig())
