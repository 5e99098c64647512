"""The two halves of all documents: each is measured by a tagger that has learned from the other half only."""

import hashlib

from embeddinggemma_feasibility.evaluation import normalise_value

HALVES = (0, 1)


def half_of(text: str) -> int:
    """Return the half a document is in: a hash of its normalised text decides, so that copies are in the same half."""
    return hashlib.sha256(normalise_value(text).encode()).digest()[0] % 2
