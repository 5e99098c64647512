from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from feedback.claiming import answer_jobs
from feedback.launcher import Launcher
from feedback.submission import create_training_run, trigger_model_feedback
from registry.annotations import list_annotations, replace_annotations
from registry.documents import get_document
from registry.errors import ConflictError, InvalidInputError, NotFoundError
from registry.outcome import Decision, Outcome
from tests.feedback.jobs import find_waiting_job
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


def test_feedback_whose_job_failed_becomes_a_new_job(session: Session, prefect_away: Launcher) -> None:
    document = add_document(session)
    first = trigger_model_feedback(session, prefect_away, document, [marked("Bell")]).id
    failed = Outcome(decision=Decision.FAILED, reason="because", flow_run_id="run")
    answer_jobs(session, [first], failed)
    assert trigger_model_feedback(session, prefect_away, document, [marked("Bell")]).id != first


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
