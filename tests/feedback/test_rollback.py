"""What a promotion by a person sets aside, and what it lets count as learned."""

import pytest
from sqlmodel import Session

from embeddinggemma_feasibility.evaluation import Evaluation
from feedback.claiming import answer_jobs
from feedback.launcher import Launcher
from feedback.rollback import follow_promotion, notice_promotion
from feedback.submission import teach_again
from feedback.time_limits import utc_now
from registry.errors import ConflictError
from registry.jobs import (
    DocumentState,
    add_job,
    get_job,
    list_job_documents,
    select_documents_in,
)
from registry.lessons import list_learned_lessons
from registry.listed_documents import list_documents
from registry.outcome import Decision, ModelScores, Outcome
from registry.tables import Job, JobType
from tests.feedback.jobs import add_feedback, add_read_job
from tests.registry.test_annotations import add_document


def learn(session: Session, version: int, parent: int | None, decision: Decision = Decision.PROMOTED) -> Job:
    """Add feedback on a new document that a version made from another one learns."""
    job, _ = add_feedback(session, f"{version}")
    answer(session, job, version, parent, decision)
    return job


def answer(session: Session, job: Job, version: int, parent: int | None, decision: Decision) -> None:
    """Answer a job with a version made from another one."""
    scores = [
        ModelScores(version=str(number), score=1.0, unseen=Evaluation()) for number in (version, parent) if number
    ]
    challenger, champion = (*scores, None)[:2]
    made = Outcome(
        decision=decision, reason="because", flow_run_id="run", decided_at=utc_now(), challenger=challenger,
        champion=champion,
    )  # fmt: skip
    answer_jobs(session, [job.id], made)
    session.expire_all()


def list_in(session: Session, state: DocumentState) -> set[str]:
    found, total = list_documents(session, 0, 10, select_documents_in(state))
    assert total == len(found)
    return {document.id for document in found}


def read_decisions(session: Session, *jobs: Job) -> list[Decision | None]:
    session.flush()
    session.expire_all()
    return [job.outcome.decision if job.outcome else None for job in jobs]


def test_rollback_sets_aside_what_was_learned_since_and_a_promotion_back_brings_it_back(session: Session) -> None:
    first, second, third = learn(session, 1, None), learn(session, 2, 1), learn(session, 3, 2)
    assert follow_promotion(session, "1", "ana (swapped labels)") == [second.id, third.id]
    assert read_decisions(session, first, second, third) == ["promoted", "rolled_back", "rolled_back"]
    assert third.outcome
    assert third.outcome.reason.startswith("Set aside: ana (swapped labels) went back to version 1. To learn it again,")
    assert list(list_learned_lessons(session)) == list_job_documents(session, [first.id])
    assert list_in(session, DocumentState.LEARNED) == {*list_job_documents(session, [first.id])}
    assert list_in(session, DocumentState.SET_ASIDE) == {*list_job_documents(session, [second.id, third.id])}
    fourth = learn(session, 4, 1)
    assert follow_promotion(session, "3", "ana") == [fourth.id]
    assert read_decisions(session, first, second, third, fourth) == [
        "promoted", "promoted", "promoted", "rolled_back",
    ]  # fmt: skip
    assert third.outcome.reason == "Promoted by ana. Before: because"


def test_refused_version_that_is_promoted_sets_aside_what_it_has_not_learned(session: Session) -> None:
    jobs = learn(session, 1, None), learn(session, 2, 1, Decision.NOT_PROMOTED), learn(session, 3, 1)
    assert follow_promotion(session, "2", "ana") == [jobs[2].id]
    assert read_decisions(session, *jobs) == ["promoted", "promoted", "rolled_back"]


def test_version_that_no_job_made_sets_nothing_aside(session: Session) -> None:
    jobs = learn(session, 1, None), learn(session, 2, 1)
    assert follow_promotion(session, "7", "ana") == []
    assert read_decisions(session, *jobs) == ["promoted", "promoted"]


def test_alias_that_was_moved_in_mlflow_is_noticed(session: Session) -> None:
    first, second = learn(session, 1, None), learn(session, 2, 1)
    assert notice_promotion(session, "2") == notice_promotion(session, None) == []
    assert notice_promotion(session, "1") == [second.id]
    assert read_decisions(session, first, second) == ["promoted", "rolled_back"]
    assert notice_promotion(session, "1") == []
    assert second.outcome
    assert "somebody in MLflow went back to version 1" in second.outcome.reason


def test_documents_of_a_training_run_that_is_rolled_back_are_set_aside(session: Session) -> None:
    learn(session, 1, None)
    document_id = add_document(session, "run").id
    answer(session, add_read_job(session, JobType.TRAINING_RUN, document_id), 2, 1, Decision.PROMOTED)
    follow_promotion(session, "1", "ana")
    session.flush()
    session.expire_all()
    assert list_in(session, DocumentState.SET_ASIDE) == {document_id}


def test_job_that_is_set_aside_is_taught_again_as_a_new_job(session: Session, prefect_away: Launcher) -> None:
    _, second = learn(session, 1, None), learn(session, 2, 1)
    with pytest.raises(ConflictError, match="is not set aside"):
        teach_again(session, prefect_away, second, "ana")
    follow_promotion(session, "1", "ana")
    session.flush()
    again = teach_again(session, prefect_away, second, "rui")
    assert (again.outcome, again.triggered_by, again.type) == (None, "rui", JobType.FEEDBACK)
    assert list_job_documents(session, [again.id]) == list_job_documents(session, [second.id])
    assert not list_in(session, DocumentState.SET_ASIDE)
    with pytest.raises(ConflictError, match="is not set aside"):
        teach_again(session, prefect_away, get_job(session, again.id), "ana")
    empty = add_job(session, JobType.CONSOLIDATION, [], "ana")
    answer_jobs(session, [empty.id], Outcome(decision=Decision.FAILED, reason="because", flow_run_id="run"))
    session.expire_all()
    with pytest.raises(ConflictError, match="no documents"):
        teach_again(session, prefect_away, empty, "ana")


def test_refused_job_that_a_person_promotes_is_served_since_then(session: Session) -> None:
    refused, promoted = learn(session, 1, None, Decision.NOT_PROMOTED), learn(session, 2, None)
    before = utc_now()
    follow_promotion(session, "1", "ana")
    follow_promotion(session, "2", "ana")
    session.flush()
    session.expire_all()
    assert refused.answered_at
    assert promoted.answered_at
    assert (refused.answered_at >= before, promoted.answered_at < before) == (True, True)
