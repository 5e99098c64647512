"""The two halves of all documents: each is measured by a tagger that has learned from the other half only."""

import hashlib
from functools import lru_cache

from embeddinggemma_feasibility.evaluation import normalise_value

HALVES = (0, 1)


@lru_cache(maxsize=256)  # a run asks many times for each of its documents
def half_of(text: str) -> int:
    """Return the half a document is in: a hash of its normalised text decides, so that copies are in the same half."""
    return hashlib.sha256(normalise_value(text).encode()).digest()[0] % 2
