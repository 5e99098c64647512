"""Replay: which earlier documents a run learns again, so that the model does not forget them."""

import random
from collections.abc import Collection

from sqlmodel import Session, col, select

from registry.outcome import Decision
from registry.tables import Document, Job, JobDocument

_LEARNED = {Decision.PROMOTED, Decision.NOT_TRAINED}  # earlier versions did not train on held-out documents


def list_learned_documents(session: Session) -> list[str]:
    """Return the ids of the documents whose last answered job was promoted, in the order of those jobs.

    The others are set aside: no model learns from them until a person sends feedback on them again, or promotes the
    version that was refused.
    """
    decision = col(Job.outcome)["decision"].as_string()
    query = select(JobDocument.document_id, decision).join(Job).join(Document).where(col(Job.outcome).is_not(None))
    learned: dict[str, None] = {}  # used as an ordered set
    for document_id, decided in session.exec(query.order_by(col(Job.number))):
        learned.pop(document_id, None)
        if decided in _LEARNED:
            learned[document_id] = None
    return list(learned)


def choose_replay_documents(learned: Collection[str], excluded: Collection[str], limit: int) -> list[str]:
    """Return a random choice of the learned documents; the same for the same documents."""
    earlier = [document_id for document_id in learned if document_id not in excluded]
    return random.Random(len(earlier)).sample(earlier, min(limit, len(earlier)))  # noqa: S311  (which is no secret)
