"""Where representations of documents are kept."""

from pathlib import Path

from embeddinggemma_feasibility.representations import RepresentationCache
from registry.settings import Settings


def build_cache(settings: Settings) -> RepresentationCache:
    """Return the settings' cache, which the API and the runs of one machine share."""
    return RepresentationCache(Path(settings.cache_folder), settings.cache_bytes)
