from sqlmodel import Session

from feedback.claiming import answer_jobs
from feedback.replay import choose_replay_documents
from registry.annotations import add_annotation
from registry.audit import set_principal
from registry.documents import get_document
from registry.outcome import Decision
from tests.feedback.jobs import add_feedback, outcome
from tests.registry.test_annotations import marked


def test_replay_starts_with_what_no_champion_has_learned(session: Session) -> None:
    learned = [add_feedback(session, name) for name in "abcd"]
    answer_jobs(session, [job.id for job, _ in learned], outcome())
    refused, document_id = add_feedback(session, "e")
    answer_jobs(session, [refused.id], outcome(Decision.NOT_PROMOTED))
    chosen = choose_replay_documents(session, [learned[0][1]], 3)
    assert chosen[0] == document_id
    assert len(chosen) == 3
    assert learned[0][1] not in chosen


def test_documents_refused_before_a_promotion_count_as_learned(session: Session) -> None:
    documents = {}
    for name in "abcdefgh":
        job, documents[name] = add_feedback(session, name)
        answer_jobs(session, [job.id], outcome(Decision.PROMOTED if name == "f" else Decision.NOT_PROMOTED))
    names = {document_id: name for name, document_id in documents.items()}
    chosen = "".join(names[document_id] for document_id in choose_replay_documents(session, [], 8))
    assert chosen.startswith("hg")
    assert sorted(chosen) == sorted(names.values())
    assert not chosen.startswith("hgedcba")


def test_document_whose_annotations_changed_after_the_last_promotion_is_replayed_first(session: Session) -> None:
    set_principal(session, "ana")
    learned = [add_feedback(session, name) for name in "abcdef"]
    marked_before, deleted_since = learned[0][1], learned[3][1]
    annotations = [
        add_annotation(session, get_document(session, document_id), marked("Bell"))
        for document_id in (marked_before, deleted_since)
    ]
    promoted, document_id = add_feedback(session, "g")
    answer_jobs(session, [job.id for job, _ in [*learned, (promoted, document_id)]], outcome())
    session.flush()
    session.delete(annotations[1])
    session.flush()
    assert choose_replay_documents(session, [], 1) == [deleted_since]
    assert len(choose_replay_documents(session, [deleted_since], 9)) == 6
