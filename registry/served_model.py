"""The model that serves extractions: the current champion, kept in memory."""

import threading
from dataclasses import dataclass

from embeddinggemma_feasibility.tagger import Tagger
from registry.errors import UnavailableError
from registry.models import ModelRegistry


@dataclass(frozen=True)
class LoadedModel:
    """A tagger and its version; each response uses only one of these."""

    version: str
    tagger: Tagger


class ServedModel:
    """Loads the champion when it is first needed, and again when it has changed."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._loading = threading.Lock()
        self._loaded: LoadedModel | None = None

    def get(self) -> LoadedModel | None:
        """Return the champion, None before the first; if MLflow does not answer, the model loaded last.

        Raises UnavailableError if MLflow does not answer and no model is loaded.
        """
        loaded = self._loaded
        if loaded and loaded.version == self.find_version():
            return loaded
        with self._loading:
            try:
                champion = self._registry.find_champion()
                if champion and (self._loaded is None or self._loaded.version != champion):
                    self._loaded = LoadedModel(champion, self._registry.load_tagger(champion))
            except UnavailableError:
                if self._loaded is None:
                    raise
            return self._loaded

    def find_version(self) -> str | None:
        """Return the version that serves now, without loading it."""
        try:
            return self._registry.find_champion()
        except UnavailableError:
            return self._loaded.version if self._loaded else None
