"""Replay: which earlier documents a run learns again, so that the model does not forget them."""

import random
from collections.abc import Collection

from sqlmodel import Session, col, select

from registry.audit import list_documents_changed_since
from registry.outcome import Decision
from registry.tables import Document, Job, JobDocument


def choose_replay_documents(session: Session, excluded: Collection[str], limit: int) -> list[str]:
    """Return the ids of earlier documents to replay: those no champion has learned, newest first, then a random choice.

    A champion has learned what was refused before it, since its run replayed that. It has not learned what changed in
    a document's annotations after its run.
    """
    decision = col(Job.outcome)["decision"].as_string()
    query = select(JobDocument.document_id, Job.id, decision).join(Job).join(Document)
    query = query.where(col(Document.held_out).is_(False), col(Job.outcome).is_not(None))
    unlearned: dict[str, None] = {}  # used as ordered sets
    learned: dict[str, None] = {}
    last_promoted = None
    for document_id, job_id, decided in session.exec(query.order_by(col(Job.number))):
        unlearned.pop(document_id, None)
        unlearned[document_id] = None
        if decided == Decision.PROMOTED:
            learned |= unlearned
            unlearned, last_promoted = {}, job_id
    changed = list_documents_changed_since(session, last_promoted)
    unlearned |= {document_id: None for document_id in learned if document_id in changed}
    earlier = [document_id for document_id in learned if document_id not in unlearned]
    random.Random(len(learned) + len(unlearned)).shuffle(earlier)  # noqa: S311  (which are replayed is no secret)
    chosen = [*reversed(unlearned), *earlier]
    return [document_id for document_id in chosen if document_id not in excluded][:limit]
