from datetime import timedelta

import pytest
from sqlmodel import Session, select

from feedback.claiming import answer_jobs, set_aside_documents
from registry.annotations import replace_annotations
from registry.jobs import DocumentState, add_job, find_last_feedback, get_snapshot, list_jobs, select_documents_in
from registry.lessons import list_learned_lessons, take_lessons
from registry.outcome import Decision
from registry.tables import Document, JobType, ListedDocument
from tests.feedback.jobs import add_feedback, add_read_job, outcome
from tests.registry.test_annotations import add_document, marked


def test_last_feedback_is_the_one_stored_last_though_the_clock_was_set_back(session: Session) -> None:
    first, document_id = add_feedback(session, "a")
    second = add_read_job(session, JobType.FEEDBACK, document_id)
    second.created_at = first.created_at - timedelta(hours=1)
    session.add(second)
    session.flush()
    assert find_last_feedback(session, document_id) == second
    assert list_jobs(session, 0, 2)[0] == [second, first]


def test_snapshot_ends_before_the_first_unanswered_job(session: Session) -> None:
    assert get_snapshot(session) == 0
    jobs = [add_feedback(session, name)[0] for name in "abc"]
    assert get_snapshot(session) == 0
    answer_jobs(session, [jobs[0].id, jobs[2].id], outcome())
    assert get_snapshot(session) == 1
    answer_jobs(session, [jobs[1].id], outcome())
    assert get_snapshot(session) == 3


def test_document_is_learned_as_its_last_promoted_job_taught_it(session: Session) -> None:
    first, second, third = (add_feedback(session, name) for name in "abc")
    assert list(list_learned_lessons(session)) == []
    answer_jobs(session, [first[0].id, third[0].id], outcome())
    answer_jobs(session, [second[0].id], outcome(Decision.NOT_PROMOTED))
    assert list(list_learned_lessons(session)) == [first[1], third[1]]
    again = [add_read_job(session, JobType.FEEDBACK, document_id) for _, document_id in (second, first)]
    assert list(list_learned_lessons(session)) == [first[1], third[1]]
    answer_jobs(session, [again[0].id], outcome())
    answer_jobs(session, [again[1].id], outcome(Decision.NOT_PROMOTED))
    assert list_learned_lessons(session) == {first[1]: first[0].id, third[1]: third[0].id, second[1]: again[0].id}
    assert list(list_learned_lessons(session, since=3)) == [second[1]]


def test_training_run_that_was_not_promoted_leaves_its_documents_learned(session: Session) -> None:
    learned, document_id = add_feedback(session, "a")
    answer_jobs(session, [learned.id], outcome())
    run = add_read_job(session, JobType.TRAINING_RUN, document_id)
    answer_jobs(session, [run.id], outcome(Decision.NOT_PROMOTED))
    assert list(list_learned_lessons(session)) == [document_id]
    assert list(list_learned_lessons(session, since=1)) == []


def is_set_aside(session: Session, document_id: str) -> bool:
    in_state = select_documents_in(DocumentState.SET_ASIDE)
    return document_id in session.exec(select(ListedDocument.document_id).where(in_state)).all()


@pytest.mark.parametrize("is_changed", [True, False])
def test_refused_training_run_sets_a_learned_document_aside_only_if_it_brought_new_annotations(
    session: Session, *, is_changed: bool
) -> None:
    learned, document_id = add_feedback(session, "a")
    answer_jobs(session, [learned.id], outcome())
    if is_changed:
        replace_annotations(session, session.get_one(Document, document_id), [marked("Bell")])
    for _ in range(2):
        run = add_read_job(session, JobType.TRAINING_RUN, document_id)
        answer_jobs(session, [run.id], outcome(Decision.NOT_PROMOTED))
    assert is_set_aside(session, document_id) == is_changed


def test_contradicted_document_of_a_training_run_is_set_aside_while_the_run_is_promoted(session: Session) -> None:
    document_ids = [add_document(session, name).id for name in "ab"]
    run = add_job(session, JobType.TRAINING_RUN, document_ids, "ana")
    take_lessons(session, [run.id], "run")
    set_aside_documents(session, [run.id], {document_ids[0]: "because"}, "run")
    answer_jobs(session, [run.id], outcome())
    assert [is_set_aside(session, each) for each in document_ids] == [True, False]
