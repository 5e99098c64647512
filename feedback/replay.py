"""Replay: which earlier documents a run learns again, so that the model does not forget them."""

import random
from collections.abc import Collection, Sequence

_LATEST = 250  # of 17,000 characters each, their representations take 0.75 GB of the cache


def choose_replay_documents(learned: Sequence[str], excluded: Collection[str], limit: int) -> list[str]:
    """Return a random choice of the documents that were learned last; the same for the same documents.

    `learned` ends with the latest. What the encoder computed for earlier ones may have left the cache.
    """
    earlier = [document_id for document_id in learned if document_id not in excluded]
    latest = earlier[-_LATEST:]
    return random.Random(len(earlier)).sample(latest, min(limit, len(latest)))  # noqa: S311  (which is no secret)
