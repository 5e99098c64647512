"""What the list of documents shows, its orders and filters."""

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from feedback.claiming import answer_jobs
from registry.annotations import add_annotation, delete_annotation, replace_annotations
from registry.documents import get_document
from registry.jobs import Review, add_job, is_in_review
from registry.lessons import store_lessons
from registry.listed_documents import (
    Order,
    find_listed,
    is_named_like,
    list_documents,
    list_documents_to_read,
    store_uncertain_values,
)
from registry.outcome import Decision
from registry.tables import AnnotationStatus, Document, JobType, ListedDocument
from tests.feedback.jobs import outcome
from tests.registry.test_annotations import add_document, marked


def find_review(session: Session, document: Document) -> Review:
    """Return the review of a document; the filters must agree with it."""
    review = find_listed(session, [document.id])[document.id]["review"]
    for each in Review:
        found = {other.id for other in list_documents(session, 0, 10, is_in_review(each))[0]}
        assert (document.id in found) == (each == review)
    return review


def teach(session: Session, document: Document, decision: Decision | None) -> None:
    """Add feedback on what is annotated, answered or waiting."""
    job = add_job(session, JobType.FEEDBACK, [document.id], "ana")
    store_lessons(session, [job.id])
    if decision:
        answer_jobs(session, [job.id], outcome(decision))


@pytest.mark.parametrize(
    ("decision", "review"),
    [(None, Review.WAITING), (Decision.PROMOTED, Review.REVIEWED), (Decision.NOT_PROMOTED, Review.SET_ASIDE)],
)
def test_review_follows_the_last_feedback(session: Session, decision: Decision | None, review: Review) -> None:
    document, other = add_document(session), add_document(session, "other")
    add_annotation(session, document, marked("Bell"))
    assert find_review(session, document) == Review.NEW
    teach(session, document, decision)
    assert find_review(session, document) == review
    assert find_review(session, other) == Review.NEW


def test_document_is_changed_until_its_approved_annotations_are_again_those_of_its_lesson(session: Session) -> None:
    document = add_document(session)
    add_annotation(session, document, marked("Bell"))
    teach(session, document, Decision.PROMOTED)
    add_annotation(session, document, marked("100", status=AnnotationStatus.DRAFT))
    assert find_review(session, document) == Review.REVIEWED
    added = add_annotation(session, document, marked("Acme Ltd"))
    assert find_review(session, document) == Review.CHANGED
    delete_annotation(session, added)
    session.flush()
    assert find_review(session, document) == Review.REVIEWED
    replace_annotations(session, document, [])
    assert find_review(session, document) == Review.CHANGED
    teach(session, document, Decision.PROMOTED)
    assert find_review(session, document) == Review.REVIEWED


def test_documents_are_sorted_by_date_by_name_and_by_uncertainty(session: Session) -> None:
    documents = [add_document(session, name) for name in ("b", "C", "a")]
    store_uncertain_values(session, "1", {documents[0].id: 0.5, documents[2].id: 2.5, "deleted": 1.0})
    expected = {Order.NEWEST: ["a", "C", "b"], Order.NAME: ["a", "b", "C"], Order.UNCERTAIN: ["a", "b", "C"]}
    for order, names in expected.items():
        assert [document.filename for document in list_documents(session, 0, 10, None, order)[0]] == names
    page, total = list_documents(session, 1, 1, None, Order.NAME)
    assert ([document.filename for document in page], total) == (["b"], 3)
    add_annotation(session, documents[2], marked("Bell"))
    teach(session, documents[2], Decision.PROMOTED)
    in_doubt = list_documents(session, 0, 10, None, Order.UNCERTAIN)[0]
    assert [document.filename for document in in_doubt] == ["b", "C", "a"]  # the one that is taught at the end


def test_search_ignores_case_and_takes_wildcards_literally(session: Session) -> None:
    for name in ("LOCAÇÃO 100%.pdf", "locação 1000.pdf"):
        add_document(session, name)
    for part, count in (("locação", 2), ("AÇÃO 100%", 1), ("_", 0)):
        assert list_documents(session, 0, 10, is_named_like(part))[1] == count


def test_deleted_document_is_not_listed(session: Session, engine: Engine) -> None:
    document = add_document(session)
    session.commit()
    session.delete(get_document(session, document.id))
    session.commit()
    assert session.exec(select(ListedDocument)).all() == []


def test_new_documents_that_a_version_has_not_read_are_read_next(session: Session) -> None:
    reviewed, doubtful, certain, read, unknown = (add_document(session, str(number)) for number in range(5))
    teach(session, reviewed, Decision.PROMOTED)
    store_uncertain_values(session, "1", {certain.id: 0.1, doubtful.id: 3.0, reviewed.id: 9.0})
    store_uncertain_values(session, "2", {read.id: 5.0})
    assert list_documents_to_read(session, "2", 10) == [doubtful.id, certain.id, unknown.id]
    assert list_documents_to_read(session, "2", 1) == [doubtful.id, unknown.id]
