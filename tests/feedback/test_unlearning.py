from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import Session, select

from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.representations import hash_text
from feedback.claiming import answer_jobs, claim_jobs
from feedback.consolidation import Candidate, add_consolidation
from feedback.job_state import JobStatus, RunState, find_job_state
from feedback.unlearning import (
    Withdrawal,
    check_may_be_promoted,
    claim_unlearnings,
    delete_document,
    end_unlearning,
    is_obsolete,
    list_handed_over,
    withdraw_lessons,
)
from registry.annotations import replace_annotations
from registry.documents import get_document
from registry.errors import ConflictError, DeletedError, InvalidInputError, NotFoundError
from registry.jobs import DocumentState, add_job, count_waiting_jobs, get_snapshot, list_jobs, select_documents_in
from registry.lessons import list_learned_lessons, list_lessons, take_lessons
from registry.outcome import Decision, Outcome
from registry.tables import DeletedDocument, Job, JobType, ListedDocument
from tests.feedback.jobs import add_feedback, add_read_job, find_waiting_job, outcome
from tests.registry.test_annotations import add_document, marked


def answered_by(version: str, decision: Decision = Decision.PROMOTED) -> Outcome:
    answer = outcome(decision)
    assert answer.challenger
    return answer.model_copy(update={"challenger": answer.challenger.model_copy(update={"version": version})})


def learn(session: Session, name: str, version: str = "1") -> str:
    job, document_id = add_feedback(session, name)
    answer_jobs(session, [job.id], answered_by(version))
    return document_id


def delete(session: Session, document_id: str) -> DeletedDocument:
    delete_document(session, get_document(session, document_id), "ana")
    session.flush()
    return session.get_one(DeletedDocument, document_id)


def describe(session: Session, document_id: str) -> str:
    with pytest.raises(DeletedError) as error:
        get_document(session, document_id)
    return str(error.value)


def test_lessons_are_withdrawn_by_all_criteria_given(session: Session) -> None:
    first, second = learn(session, "a"), learn(session, "b")
    again = add_job(session, JobType.TRAINING_RUN, [first], "rui")
    take_lessons(session, [again.id], "run")
    again.created_at = datetime.now(UTC) + timedelta(hours=1)
    session.add(again)
    answer_jobs(session, [again.id], outcome())
    before = list_learned_lessons(session)
    later = datetime.now(UTC) + timedelta(minutes=30)
    for nothing in (
        Withdrawal(reviewers=["rui"], document_ids=[second]),
        Withdrawal(since=later, document_ids=[second]),
        Withdrawal(since=later + timedelta(hours=1)),
        Withdrawal(reviewers=["nobody"]),
    ):
        with pytest.raises(InvalidInputError, match="Nothing that counts was taught"), session.begin_nested():
            withdraw_lessons(session, nothing, "ana")
    with pytest.raises(NotFoundError):
        withdraw_lessons(session, Withdrawal(document_ids=["none"]), "ana")
    assert list_learned_lessons(session) == before
    job = withdraw_lessons(session, Withdrawal(reviewers=["rui"], since=later), "ana")
    assert job.note
    assert job.note.startswith("Without what was taught by rui since 20")
    left = list_learned_lessons(session)
    assert left.keys() == {first, second}
    assert left[first] not in {again.id, None}
    withdraw_lessons(session, Withdrawal(document_ids=[first]), "ana")
    assert list(list_learned_lessons(session)) == [second]
    assert list(session.exec(select(ListedDocument.document_id).where(select_documents_in(DocumentState.LEARNED)))) == [
        second
    ]
    assert list(
        session.exec(select(ListedDocument.document_id).where(select_documents_in(DocumentState.SET_ASIDE)))
    ) == [first]


def test_lesson_with_an_annotation_of_a_reviewer_is_withdrawn_though_another_taught_it(session: Session) -> None:
    document = add_document(session)
    annotation = marked("Bell")
    annotation.reviewer = "rui"
    replace_annotations(session, document, [annotation])
    add_read_job(session, JobType.TRAINING_RUN, document.id)
    withdraw_lessons(session, Withdrawal(reviewers=["rui"]), "ana")


def test_what_waits_to_be_read_is_withdrawn_too(session: Session) -> None:
    job = add_job(session, JobType.FEEDBACK, [add_document(session).id], "rui")
    withdraw_lessons(session, Withdrawal(reviewers=["rui"]), "ana")
    take_lessons(session, [job.id], "run")
    assert list_lessons(session, [job.id]) == {}


def test_request_to_unlearn_neither_waits_for_a_run_on_feedback_nor_holds_up_the_snapshot(session: Session) -> None:
    learned, other = learn(session, "a"), learn(session, "b")
    delete(session, learned)
    assert count_waiting_jobs(session) == 0
    assert find_waiting_job(session) is None
    assert get_snapshot(session) == 3
    request = session.exec(select(Job).where(Job.type == JobType.UNLEARNING)).one()
    assert claim_jobs(session, "run", None) == claim_jobs(session, "run", request.id) == []
    assert list(list_learned_lessons(session)) == [other]


def test_document_that_no_run_has_read_is_deleted_without_a_request(session: Session) -> None:
    document = add_document(session)
    add_job(session, JobType.FEEDBACK, [document.id], "ana")
    deleted = delete(session, document.id)
    assert (deleted.learned_from, deleted.unlearning_job_id, deleted.text_hash) == (None, None, None)
    assert describe(session, document.id).endswith("UTC. No version of the model has learned it.")
    check_may_be_promoted(session, 1)


def test_document_that_a_run_has_read_may_be_in_the_next_version(session: Session) -> None:
    learn(session, "a", version="6")
    _, document_id = add_feedback(session, "b")
    assert delete(session, document_id).learned_from == 7


def test_deleted_document_says_which_versions_have_learned_it_and_only_others_are_promoted(
    session: Session, tmp_path: Path
) -> None:
    document_id = learn(session, "a", version="3")
    text = get_document(session, document_id).text
    deleted = delete(session, document_id)
    assert deleted.text_hash == hash_text(text)
    assert f"is not unlearned yet: job {deleted.unlearning_job_id} makes" in describe(session, document_id)
    with pytest.raises(ConflictError, match="promote a version before 3 or made without it: GET /documents/"):
        check_may_be_promoted(session, 99)
    cache = DiskCache(tmp_path, 1000)
    cache.add(hash_text(text) + "0" * 32, lambda path: path.write_text("cached"))
    end_unlearning(session, [str(deleted.unlearning_job_id)], 8, cache)
    session.flush()
    assert not list(tmp_path.iterdir())
    assert deleted.text_hash is None
    assert describe(session, document_id).endswith("It is unlearned: versions from 8 on were made without it.")
    for allowed in (2, 8):
        check_may_be_promoted(session, allowed)
    for refused in (3, 7):
        with pytest.raises(ConflictError, match=f"Version {refused} .* promote a version before 3 or from 8 on$"):
            check_may_be_promoted(session, refused)


def test_versions_that_learned_several_deleted_documents_are_named_together(session: Session) -> None:
    for name, first, last in (("a", 1, 4), ("b", 3, 6), ("c", 9, 12)):
        deleted = delete(session, learn(session, name, version=str(first)))
        deleted.unlearned_from = last
        session.add(deleted)
    session.flush()
    for version, where in ((2, "from 6 on"), (5, "from 6 on"), (10, "before 9 or from 12 on")):
        with pytest.raises(ConflictError, match=f"promote a version {where}$"):
            check_may_be_promoted(session, version)
    for version in (6, 8, 12):
        check_may_be_promoted(session, version)


def test_consolidation_answers_the_requests_that_it_claimed_and_no_later_one(session: Session) -> None:
    documents = [learn(session, name) for name in "abc"]
    first, second = (str(delete(session, each).unlearning_job_id) for each in documents[:2])
    assert set(claim_unlearnings(session, "run 1")) == {first, second}
    later = str(delete(session, documents[2]).unlearning_job_id)
    handover = add_consolidation(session, "run 1", Candidate("mlflow-run", 3, "All of it."))
    assert set(list_handed_over(session, [handover.id])) == {first, second}
    assert claim_unlearnings(session, "run 2") == [later]


def test_candidate_is_obsolete_once_a_request_is_answered_that_it_does_not_know(session: Session) -> None:
    deleted = delete(session, learn(session, "a"))
    request = session.get_one(Job, deleted.unlearning_job_id)
    earlier = Candidate("mlflow-run", 1, "", withdrawals=int(request.number or 0) - 1)
    assert not is_obsolete(session, earlier)
    answer_jobs(session, [request.id], outcome())
    assert is_obsolete(session, earlier)
    assert not is_obsolete(session, Candidate("mlflow-run", 1, "", withdrawals=int(request.number or 0)))


def test_request_is_running_until_a_promoted_version_answers_it(session: Session) -> None:
    delete(session, learn(session, "a"))
    claim_unlearnings(session, "run")
    job = list_jobs(session, 0, 1, JobType.UNLEARNING)[0][0]
    session.refresh(job)
    for run, status in ((JobStatus.COMPLETED, JobStatus.RUNNING), (JobStatus.CANCELLED, JobStatus.PENDING)):
        assert find_job_state(job, {"run": RunState(run)}).status == status
