"""What annotations in Label Studio teach, on both databases."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from feedback.claiming import answer_jobs
from feedback.label_studio import Review, forget_annotations, teach_reviews
from feedback.launcher import Launcher
from feedback.submission import create_training_run, teach_again, trigger_model_feedback
from feedback.unlearning import Withdrawal, withdraw_lessons
from registry.annotations import add_annotation, list_annotations, replace_annotations, update_annotation
from registry.errors import InvalidInputError
from registry.jobs import DocumentState, list_jobs, select_documents_in
from registry.lessons import find_last_lessons, list_learned_lessons, take_lessons
from registry.listed_documents import find_listed
from registry.outcome import Decision
from registry.reviews import list_reviewed_documents, list_untaught_documents
from registry.tables import AnnotationBase, AnnotationStatus, Document, Job, JobDocument, Lesson, ListedDocument
from tests.feedback.jobs import outcome
from tests.registry.test_annotations import add_document, marked


def review(
    document_id: str,
    annotations: Sequence[AnnotationBase],
    project: str = "1.1",
    number: int = 1,
    second: int = 0,
    types: Sequence[str] = ("party",),
) -> Review:
    at = datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC)
    return Review(project, number, number, at, document_id, frozenset(types), annotations)


def list_values(session: Session, document_id: str) -> set[str]:
    return {each.value for each in list_annotations(session, document_id)}


def list_set_aside(session: Session) -> set[str]:
    """Return the documents that are set aside; the list of documents must say the same of each."""
    is_set_aside = select_documents_in(DocumentState.SET_ASIDE)
    found = set(session.exec(select(ListedDocument.document_id).where(is_set_aside)))
    listed = find_listed(session, session.exec(select(Document.id)).all())
    assert found == {document_id for document_id, each in listed.items() if each["review"] == "set_aside"}
    return found


def test_copies_at_the_same_time_are_one_job(engine: Engine, session: Session, prefect_away: Launcher) -> None:
    document_id = add_document(session).id
    session.commit()

    def teach(_: int) -> list[str]:
        with Session(engine) as own:
            jobs = teach_reviews(own, prefect_away, [review(document_id, [marked("Bell")])], "ana")
            return [job.id for job in jobs]

    with ThreadPoolExecutor(8) as pool:
        [(_,)] = {tuple(jobs) for jobs in pool.map(teach, range(8))}


def test_two_projects_that_annotate_a_text_at_the_same_time_leave_each_other_alone(
    engine: Engine, session: Session, prefect_away: Launcher
) -> None:
    document_id = add_document(session).id
    session.commit()

    def teach(number: int) -> None:
        name = f"type {number}"
        annotation = marked("Bell").model_copy(update={"type": name})
        with Session(engine) as own:
            new = review(document_id, [annotation], project=f"{number}.1", types=[name])
            teach_reviews(own, prefect_away, [new], "ana")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(teach, range(8)))
    assert {each.type for each in list_annotations(session, document_id)} == {f"type {number}" for number in range(8)}
    assert len(find_last_lessons(session, [document_id])[document_id].reviewed_types) == 8


@pytest.mark.parametrize(("decision", "is_new"), [(Decision.PROMOTED, False), (Decision.NOT_PROMOTED, True)])
def test_same_state_again_is_a_new_job_only_if_no_version_learned_it(
    session: Session, prefect_away: Launcher, decision: Decision, is_new: bool
) -> None:
    state = review(add_document(session).id, [marked("Bell")])
    [first] = teach_reviews(session, prefect_away, [state], "ana")
    answer_jobs(session, [first.id], outcome(decision))
    [again] = teach_reviews(session, prefect_away, [state], "ana")
    assert (again.id != first.id) == is_new


def test_deleted_annotation_does_not_count_and_a_version_without_it_can_be_requested(
    session: Session, prefect_away: Launcher
) -> None:
    document_id = add_document(session).id
    [job] = teach_reviews(session, prefect_away, [review(document_id, [marked("Bell")])], "ana")
    answer_jobs(session, [job.id], outcome())
    assert list_learned_lessons(session) == {document_id: job.id}
    assert forget_annotations(session, prefect_away, "1.1", [1], "ana") == []
    assert (list_values(session, document_id), list_learned_lessons(session)) == (set(), {})
    request = withdraw_lessons(session, Withdrawal(document_ids=[document_id]), "ana")
    assert session.get_one(JobDocument, (job.id, document_id)).withdrawn_by == request.id


def test_deletion_leaves_what_another_project_has_reviewed_of_the_same_types_since(
    session: Session, prefect_away: Launcher
) -> None:
    document_id = add_document(session).id
    teach_reviews(session, prefect_away, [review(document_id, [marked("Bell")], types=["party", "date"])], "ana")
    later = review(document_id, [marked("Acme Ltd")], project="2.1", second=1)
    [job] = teach_reviews(session, prefect_away, [later], "ana")
    [again] = forget_annotations(session, prefect_away, "1.1", [1], "ana")
    assert list_values(session, document_id) == {"Acme Ltd"}
    assert find_last_lessons(session, [document_id])[document_id].reviewed_types == ["party"]
    assert list_jobs(session, 0, 9)[1] == 3
    assert again.id != job.id


def test_reviews_of_many_documents_become_one_job_each_with_the_last_state(
    session: Session, prefect_away: Launcher
) -> None:
    first, second = add_document(session, "1").id, add_document(session, "2").id
    states = [
        review(first, [marked("Bell")], second=1),
        review(first, [marked("Acme Ltd")], number=2),
        review(second, [], number=3),
    ]
    [job] = teach_reviews(session, prefect_away, states, "ana")
    assert list_values(session, first) == {"Bell"}
    assert len(find_last_lessons(session, [first, second])) == 2
    assert session.get_one(Job, job.id).type == "training_run"


def test_older_annotation_of_another_annotator_that_comes_late_teaches_nothing(
    session: Session, prefect_away: Launcher
) -> None:
    document_id = add_document(session).id
    teach_reviews(session, prefect_away, [review(document_id, [marked("Bell")], second=1)], "ana")
    assert teach_reviews(session, prefect_away, [review(document_id, [], number=2)], "ana") == []
    assert list_values(session, document_id) == {"Bell"}


def test_training_run_inherits_what_nobody_looked_for_and_feedback_does_not(
    session: Session, prefect_away: Launcher
) -> None:
    document, other = add_document(session, "1"), add_document(session, "2")
    date = marked("Acme Ltd").model_copy(update={"type": "date"})
    trigger_model_feedback(session, prefect_away, other, [date])
    teach_reviews(session, prefect_away, [review(document.id, [marked("Bell")])], "ana")
    run = create_training_run(session, prefect_away, None, "ana")
    take_lessons(session, [run.id], "run")
    reviewed = find_last_lessons(session, [document.id, other.id])
    assert [reviewed[each.id].reviewed_types for each in (document, other)] == [["party"], ["date", "party"]]
    trigger_model_feedback(session, prefect_away, document)
    assert find_last_lessons(session, [document.id])[document.id].reviewed_types == ["date", "party"]


def test_refused_or_retracted_batch_sets_its_documents_aside(session: Session, prefect_away: Launcher) -> None:
    first, second = add_document(session, "1").id, add_document(session, "2").id
    states = [review(first, [marked("Bell")]), review(second, [], number=2)]
    [refused] = teach_reviews(session, prefect_away, states, "ana")
    answer_jobs(session, [refused.id], outcome(Decision.NOT_PROMOTED))
    assert list_set_aside(session) == {first, second}
    [again] = teach_reviews(session, prefect_away, states, "ana")
    answer_jobs(session, [again.id], outcome())
    assert list_set_aside(session) == set()
    forget_annotations(session, prefect_away, "1.1", [1, 2], "ana")
    assert list_set_aside(session) == {first, second}


def learn(session: Session, job: Job) -> Lesson:
    """Have a run learn a job on one document, and return its lesson."""
    take_lessons(session, [job.id], "run")
    answer_jobs(session, [job.id], outcome())
    [row] = session.exec(select(JobDocument).where(JobDocument.job_id == job.id))
    assert row.lesson
    return row.lesson


def test_training_run_learns_what_was_annotated_of_other_types_since_a_review(
    session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    learn(session, teach_reviews(session, prefect_away, [review(document.id, [marked("Bell")])], "ana")[0])
    replace_annotations(session, document, [marked("Bell"), marked("100", "amount")])
    lesson = learn(session, create_training_run(session, prefect_away, [document.id], "ana"))
    assert ([each.type for each in lesson.annotations], lesson.reviewed_types) == (
        ["amount", "party"],
        ["amount", "party"],
    )
    assert list_untaught_documents(session, [document.id]) == []


def test_insisting_on_a_review_teaches_its_types_alone(session: Session, prefect_away: Launcher) -> None:
    document = add_document(session)
    replace_annotations(session, document, [marked("100", "amount")])
    [refused] = teach_reviews(session, prefect_away, [review(document.id, [marked("Bell")])], "ana")
    answer_jobs(session, [refused.id], outcome(Decision.NOT_PROMOTED))
    session.refresh(refused)
    lesson = learn(session, teach_again(session, prefect_away, refused, "ana"))
    assert ([each.type for each in lesson.annotations], lesson.reviewed_types) == (["party"], ["party"])


def test_training_run_on_a_retracted_document_says_nothing_of_types_that_are_not_annotated(
    session: Session, prefect_away: Launcher
) -> None:
    document = add_document(session)
    trigger_model_feedback(session, prefect_away, add_document(session, "other"), [marked("Bell")])
    replace_annotations(session, document, [marked("100", "amount")])
    learn(session, teach_reviews(session, prefect_away, [review(document.id, [marked("Bell")])], "ana")[0])
    forget_annotations(session, prefect_away, "1.1", [1], "ana")
    lesson = learn(session, create_training_run(session, prefect_away, [document.id], "ana"))
    assert (lesson.reviewed_types, lesson.is_partial) == (["amount"], True)


def test_document_whose_review_was_retracted_is_neither_trained_on_nor_exported(
    session: Session, prefect_away: Launcher
) -> None:
    document_id = add_document(session).id
    teach_reviews(session, prefect_away, [review(document_id, [marked("Bell")])], "ana")
    forget_annotations(session, prefect_away, "1.1", [1], "ana")
    with pytest.raises(InvalidInputError, match="no approved annotations"):
        create_training_run(session, prefect_away, [document_id], "ana")
    assert list_reviewed_documents(session, list(AnnotationStatus)) == []


@pytest.mark.parametrize("types", [["party"], ["party", "date"]])
def test_deletion_leaves_what_was_marked_or_changed_since_and_not_sent_as_feedback(
    session: Session, prefect_away: Launcher, types: list[str]
) -> None:
    document = add_document(session)
    state = review(document.id, [marked("Bell"), marked("Acme Ltd"), marked("paga")], types=types)
    later = review(document.id, [], project="2.1", second=1, types=["date"])
    for each in (state, later):
        teach_reviews(session, prefect_away, [each], "ana")
    changed = next(each for each in list_annotations(session, document.id) if each.value == "Bell")
    update_annotation(session, document, changed, marked("à Bell"))
    add_annotation(session, document, marked("100"))
    session.commit()
    forget_annotations(session, prefect_away, "1.1", [1], "ana")
    assert list_values(session, document.id) == {"à Bell", "100"}
    assert find_last_lessons(session, [document.id])[document.id].spans == ()
