"""Replay: which earlier documents a run learns again, so that the model does not forget them."""

import random
from collections.abc import Collection


def choose_replay_documents(learned: Collection[str], excluded: Collection[str], limit: int) -> list[str]:
    """Return a random choice of the learned documents; the same for the same documents."""
    earlier = [document_id for document_id in learned if document_id not in excluded]
    return random.Random(len(earlier)).sample(earlier, min(limit, len(earlier)))  # noqa: S311  (which is no secret)
