from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, insert
from sqlmodel import Session

from embeddinggemma_feasibility.annotation_data import Span
from feedback.claiming import answer_jobs
from feedback.launcher import Launcher
from feedback.submission import create_training_run, teach_again, trigger_model_feedback
from registry.annotations import add_annotation, list_annotations, replace_annotations
from registry.documents import get_document
from registry.errors import ConflictError, InvalidInputError, NotFoundError
from registry.jobs import list_job_documents
from registry.lessons import load_lessons, take_lessons
from registry.outcome import Decision
from registry.tables import Annotation, AnnotationStatus, Document
from tests.feedback.jobs import find_waiting_job, outcome
from tests.registry.test_annotations import add_document, marked


def test_wrong_annotation_stores_neither_annotations_nor_job(session: Session, prefect_away: Launcher) -> None:
    document = add_document(session)
    session.commit()
    wrong = marked("Bell").model_copy(update={"value": "Bull"})
    with pytest.raises(InvalidInputError):
        trigger_model_feedback(session, prefect_away, document, [marked("Acme Ltd"), wrong])
    session.rollback()
    assert find_waiting_job(session) is None
    with pytest.raises(InvalidInputError, match="no approved annotations"):
        trigger_model_feedback(session, prefect_away, document)


def test_identical_annotations_return_the_same_job_and_different_ones_a_new_job(
    session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    both = [marked("Bell"), marked("Acme Ltd")]
    first = trigger_model_feedback(session, prefect_away, document, both).id
    assert trigger_model_feedback(session, prefect_away, document, both[::-1]).id == first
    assert trigger_model_feedback(session, prefect_away, document).id == first
    other = trigger_model_feedback(session, prefect_away, document, both[:1]).id
    assert other != first
    assert trigger_model_feedback(session, prefect_away, document, both).id not in (first, other)


def test_annotations_that_somebody_changed_are_learned_again_when_they_are_put_right(
    session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    first = trigger_model_feedback(session, prefect_away, document, [marked("Bell")]).id
    replace_annotations(session, document, [marked("Acme Ltd")])
    session.commit()
    assert trigger_model_feedback(session, prefect_away, document, [marked("Bell")]).id != first


def test_stored_annotations_fed_back_at_the_same_time_are_one_job(
    engine: Engine, session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    replace_annotations(session, document, [marked("Bell")])
    document_id = document.id
    session.commit()

    def feed_back(_: int) -> str:
        with Session(engine) as own:
            return trigger_model_feedback(own, prefect_away, get_document(own, document_id)).id

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(feed_back, range(20)))) == 1


def test_identical_annotations_sent_at_the_same_time_are_one_job(
    engine: Engine, session: Session, prefect_away: Launcher
) -> None:
    document_id = add_document(session).id
    session.commit()

    def feed_back(number: int) -> str:
        with Session(engine) as own:
            both = [marked("Bell"), marked("Acme Ltd")][:: (-1) ** number]
            return trigger_model_feedback(own, prefect_away, get_document(own, document_id), both).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(feed_back, range(8)))) == 1


@pytest.mark.parametrize("decision", [Decision.FAILED, Decision.NOT_PROMOTED])
def test_feedback_that_no_version_learned_becomes_a_new_job_when_it_is_sent_again(
    session: Session, prefect_away: Launcher, decision: Decision
) -> None:
    document = add_document(session)
    first = trigger_model_feedback(session, prefect_away, document, [marked("Bell")]).id
    answer_jobs(session, [first], outcome(decision))
    assert trigger_model_feedback(session, prefect_away, document, [marked("Bell")]).id != first


def test_job_teaches_what_was_sent_though_somebody_changes_the_annotations_before_its_run(
    session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    job = trigger_model_feedback(session, prefect_away, document, [marked("Bell")])
    replace_annotations(session, document, [])
    take_lessons(session, [job.id], "run")
    (data,) = load_lessons(session, {document.id: job.id})
    assert data.spans == (Span(22, 26, "party"),)


def test_nobody_insists_on_annotations_that_were_changed_after_they_were_refused(
    session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    refused = trigger_model_feedback(session, prefect_away, document, [marked("Bell")])
    answer_jobs(session, [refused.id], outcome(Decision.NOT_PROMOTED))
    replace_annotations(session, document, [marked("Bell", "date")])
    session.commit()
    with pytest.raises(ConflictError, match="send feedback on it"):
        teach_again(session, prefect_away, refused, "ana")
    session.rollback()
    replace_annotations(session, document, [marked("Bell")])
    assert teach_again(session, prefect_away, refused, "ana").insisted_by == "ana"


def test_training_run_on_all_documents_leaves_out_those_that_are_set_aside(
    session: Session, prefect_away: Launcher
) -> None:
    refused, other = add_document(session, "a"), add_document(session, "b")
    replace_annotations(session, other, [marked("Bell")])
    job = trigger_model_feedback(session, prefect_away, refused, [marked("Bell")])
    answer_jobs(session, [job.id], outcome(Decision.NOT_PROMOTED))
    run = create_training_run(session, prefect_away, None, "ana")
    assert list_job_documents(session, [run.id]) == [other.id]


def test_idempotency_key_again_changes_nothing_and_with_other_feedback_conflicts(
    session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    first = trigger_model_feedback(session, prefect_away, document, [marked("Bell")], idempotency_key="k")
    trigger_model_feedback(session, prefect_away, document, [marked("Acme Ltd")])
    again = trigger_model_feedback(session, prefect_away, document, [marked("Bell")], idempotency_key="k")
    assert again.id == first.id
    assert [annotation.value for annotation in list_annotations(session, document.id)] == ["Acme Ltd"]
    with pytest.raises(ConflictError, match="other feedback"):
        trigger_model_feedback(session, prefect_away, document, [marked("Acme Ltd")], idempotency_key="k")
    with pytest.raises(ConflictError, match="other feedback"):
        trigger_model_feedback(session, prefect_away, add_document(session, "b"), [marked("Bell")], idempotency_key="k")


def test_empty_list_is_feedback_that_a_document_has_no_entities(session: Session, prefect_away: Launcher) -> None:
    assert trigger_model_feedback(session, prefect_away, add_document(session), []).id


def test_training_run_on_an_unknown_document_stores_no_job(session: Session, prefect_away: Launcher) -> None:
    with pytest.raises(NotFoundError, match="no document none"):
        create_training_run(session, prefect_away, [add_document(session).id, "none"], "ana")
    assert find_waiting_job(session) is None


def test_training_run_on_a_document_that_nobody_has_reviewed_is_refused(
    session: Session, prefect_away: Launcher
) -> None:
    marked_by_hand, empty, unreviewed = (add_document(session, name) for name in "abc")
    add_annotation(session, marked_by_hand, marked("Bell"))
    add_annotation(session, unreviewed, marked("Bell", status=AnnotationStatus.DRAFT))
    trigger_model_feedback(session, prefect_away, empty, [])
    reviewed = [marked_by_hand.id, empty.id]
    with pytest.raises(InvalidInputError, match=f"{unreviewed.id} has no approved annotations"):
        create_training_run(session, prefect_away, [*reviewed, unreviewed.id], "ana")
    job = create_training_run(session, prefect_away, reviewed, "ana")
    assert set(list_job_documents(session, [job.id])) == set(reviewed)


def test_training_run_on_all_documents_has_10000_at_most(session: Session, prefect_away: Launcher) -> None:
    now, names = datetime.now(UTC), [str(number) for number in range(10_001)]
    fields = {"media_type": "text/plain", "size_bytes": 1, "page_count": 1, "character_count": 1, "text": "x"}
    documents = [{"id": name, "filename": name, "sha256": name, "created_at": now, **fields} for name in names]
    span = {"type": "x", "value": "x", "start": 0, "end": 1, "status": "approved", "revision": 1}
    times = {"created_at": now, "updated_at": now}
    session.execute(insert(Document), documents)
    session.execute(insert(Annotation), [{"id": name, "document_id": name, **span, **times} for name in names])
    with pytest.raises(InvalidInputError, match="10000 documents at most, not 10001"):
        create_training_run(session, prefect_away, None, "ana")
    session.delete(get_document(session, "0"))
    assert create_training_run(session, prefect_away, None, "ana").id
