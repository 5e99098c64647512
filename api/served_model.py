"""The model that answers extractions: always the champion of the moment."""

import threading
from dataclasses import dataclass

from embeddinggemma_feasibility.tagger import Tagger
from registry.errors import UnavailableError
from registry.models import ModelRegistry


@dataclass(frozen=True)
class LoadedModel:
    """A tagger and the version it is: one answer uses one of these throughout."""

    version: str
    tagger: Tagger


class ServedModel:
    """Loads the champion when it is first needed and again whenever it has changed."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._loading = threading.Lock()
        self.loaded: LoadedModel | None = None

    def get(self) -> LoadedModel | None:
        """Return the champion, or None before the first; without MLflow, the one loaded last.

        Raises UnavailableError if MLflow does not answer and none was loaded.
        """
        try:
            champion = self._registry.find_champion()
            with self._loading:
                if champion and (self.loaded is None or self.loaded.version != champion):
                    self.loaded = LoadedModel(champion, self._registry.load_tagger(champion))
        except UnavailableError:
            if self.loaded is None:
                raise
        return self.loaded
