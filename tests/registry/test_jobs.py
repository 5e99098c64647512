import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy import Engine
from sqlmodel import Session

from embeddinggemma_feasibility.evaluation import Evaluation, ModelScores
from registry import jobs
from registry.annotations import add_annotation
from registry.audit import act_for
from registry.documents import get_document
from registry.outcome import Outcome
from registry.tables import Job, JobType
from tests.registry.test_annotations import add_document, marked


def outcome(promoted: bool = True) -> Outcome:
    scores = ModelScores(version="1", score=1.0, held_out=Evaluation())
    return Outcome(flow_run_id="run", promoted=promoted, reason="because", challenger=scores)


def add_feedback(session: Session, name: str) -> tuple[Job, str]:
    document = add_document(session, name)
    return jobs.add_job(session, JobType.FEEDBACK, [document.id], "tester"), document.id


def test_run_claims_all_that_waits_and_the_next_run_nothing(session: Session) -> None:
    first, second = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    assert {job.id for job in jobs.claim_jobs(session, "run-1", first.id)} == {first.id, second.id}
    jobs.finish_jobs(session, [first.id, second.id], outcome(), set())
    assert jobs.claim_jobs(session, "run-2", second.id) == []


def test_two_runs_at_once_do_not_claim_the_same_job(engine: Engine, session: Session) -> None:
    add_feedback(session, "a")
    session.commit()
    assert len(jobs.claim_jobs(session, "run-1", None)) == 1

    def claim_beside() -> int:
        with Session(engine) as other, other.begin():
            return len(jobs.claim_jobs(other, "run-2", None))

    with ThreadPoolExecutor() as pool:
        claimed_beside = pool.submit(claim_beside)
        time.sleep(0.5)
        session.commit()
    assert claimed_beside.result() == 0


def test_run_again_claims_the_same_jobs_until_they_are_finished(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    for _ in range(2):
        assert [claimed.id for claimed in jobs.claim_jobs(session, "run-1", job.id)] == [job.id]


def test_own_run_takes_its_job_over_from_a_run_that_failed(session: Session) -> None:
    first, second = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    jobs.claim_jobs(session, "run-1", first.id)
    assert [job.id for job in jobs.claim_jobs(session, "run-2", second.id)] == [second.id]


def test_job_that_its_run_left_without_an_answer_waits_again_with_the_reason(session: Session) -> None:
    job, other = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    job.flow_run_id = "run-1"
    session.add(job)
    jobs.claim_jobs(session, "run-1", job.id)
    assert jobs.list_unanswered_runs(session) == ["run-1"]
    assert jobs.release_jobs(session, "run-1", "the disk is full") == {job.id: 1, other.id: 1}
    assert jobs.release_jobs(session, "run-1", "the disk is full") == {}
    session.refresh(job)
    assert (job.flow_run_id, job.claimed_by, job.last_failure) == (None, None, "the disk is full")
    waiting = [jobs.find_unlaunched_job(session), jobs.find_unlaunched_job(session, [job.id])]
    assert [found.id for found in waiting if found] == [job.id, other.id]


def test_job_that_failed_twice_is_taken_along_by_no_run_of_others(session: Session) -> None:
    poison, other = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    for number in range(2):
        jobs.claim_jobs(session, f"run-{number}", poison.id)
        jobs.release_jobs(session, f"run-{number}", "it always fails")
    fresh = add_feedback(session, "c")[0]
    assert {job.id for job in jobs.claim_jobs(session, "run-2", fresh.id)} == {fresh.id}
    assert {job.id for job in jobs.claim_jobs(session, "run-3", poison.id)} == {poison.id, other.id}


def test_jobs_that_failed_together_are_claimed_half_as_many_each_time(session: Session) -> None:
    suspects = [add_feedback(session, str(number))[0] for number in range(40)]
    sizes = []
    for number in range(9):
        claimed = jobs.claim_jobs(session, f"run-{number}", suspects[0].id)
        sizes.append(len(claimed))
        jobs.release_jobs(session, f"run-{number}", "the disk is full")
    assert sizes == [40, 40, 40, 32, 16, 8, 4, 2, 1]


def test_job_is_answered_with_the_reason_after_many_runs(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    for number in range(jobs.MAX_ATTEMPTS):
        jobs.claim_jobs(session, f"run-{number}", job.id)
        jobs.release_jobs(session, f"run-{number}", "MLflow is gone")
    session.refresh(job)
    assert job.outcome
    assert job.outcome["failed"]
    assert "MLflow is gone" in job.outcome["reason"]
    assert jobs.find_unlaunched_job(session) is None


def test_run_that_refused_its_job_may_be_run_again(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    jobs.claim_jobs(session, "run-1", job.id)
    refusal = Outcome(flow_run_id="run-1", promoted=False, failed=True, reason="because")
    jobs.finish_jobs(session, [job.id], refusal, set())
    assert jobs.claim_jobs(session, "run-2", None) == []
    assert [claimed.id for claimed in jobs.claim_jobs(session, "run-1", job.id)] == [job.id]


def test_run_that_was_cancelled_before_it_claimed_its_job_may_be_run_again(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    job.flow_run_id = "run"
    session.flush()
    jobs.cancel_jobs(session, "run")
    assert jobs.claim_jobs(session, "other", None) == []
    assert [claimed.id for claimed in jobs.claim_jobs(session, "run", job.id)] == [job.id]


def test_answered_job_run_by_another_run_is_a_rerun_by_hand(session: Session) -> None:
    job, document_id = add_feedback(session, "a")
    job.flow_run_id = "own"
    jobs.claim_jobs(session, "own", job.id)
    assert not jobs.is_rerun_by_hand(session, job.id, "other")
    jobs.finish_jobs(session, [job.id], outcome(), set())
    assert jobs.is_rerun_by_hand(session, job.id, "other")
    assert not jobs.is_rerun_by_hand(session, job.id, "own")
    made = {jobs.add_manual_run(session, [document_id], "Prefect UI", "other") for _ in range(2)}
    assert len(made) == 1


def test_replay_brings_what_no_champion_learned_first(session: Session) -> None:
    learned = [add_feedback(session, name) for name in "abcd"]
    jobs.finish_jobs(session, [job.id for job, _ in learned], outcome(), set())
    refused, document_id = add_feedback(session, "e")
    jobs.finish_jobs(session, [refused.id], outcome(promoted=False), set())
    chosen = jobs.choose_replay_documents(session, [learned[0][1]], 3)
    assert chosen[0] == document_id
    assert len(chosen) == 3
    assert learned[0][1] not in chosen


def test_champion_has_learned_what_was_refused_before_it(session: Session) -> None:
    documents = {}
    for name in "abcdefgh":
        job, documents[name] = add_feedback(session, name)
        jobs.finish_jobs(session, [job.id], outcome(promoted=name == "f"), set())
    names = {document_id: name for name, document_id in documents.items()}
    chosen = "".join(names[document_id] for document_id in jobs.choose_replay_documents(session, [], 8))
    assert chosen.startswith("hg")
    assert sorted(chosen) == sorted(names.values())
    assert not chosen.startswith("hgedcba")


def test_document_whose_annotations_changed_after_the_last_promotion_is_replayed_first(session: Session) -> None:
    act_for(session, "ana")
    learned = [add_feedback(session, name) for name in "abcdef"]
    marked_before, deleted_since = learned[0][1], learned[3][1]
    annotations = [
        add_annotation(session, get_document(session, document_id), marked("Bell"))
        for document_id in (marked_before, deleted_since)
    ]
    promoted, document_id = add_feedback(session, "g")
    jobs.finish_jobs(session, [job.id for job, _ in [*learned, (promoted, document_id)]], outcome(), set())
    session.flush()
    session.delete(annotations[1])
    session.flush()
    assert jobs.choose_replay_documents(session, [], 1) == [deleted_since]
    assert len(jobs.choose_replay_documents(session, [deleted_since], 9)) == 6


def test_last_feedback_is_the_one_stored_last_though_the_clock_was_set_back(session: Session) -> None:
    first, document_id = add_feedback(session, "a")
    second = jobs.add_job(session, JobType.FEEDBACK, [document_id], "tester")
    second.created_at = first.created_at - timedelta(hours=1)
    session.add(second)
    session.flush()
    assert jobs.find_last_feedback(session, document_id) == second
    assert jobs.list_jobs(session, 0, 2)[0] == [second, first]


def test_corrections_are_kept_once_and_go_with_their_document(session: Session) -> None:
    job, document_id = add_feedback(session, "a")
    item = (document_id, "party", "bell")
    for _ in range(2):
        jobs.finish_jobs(session, [job.id], outcome(), {item, ("gone", "party", "bell")})
    assert jobs.list_corrections(session, [document_id, "gone"]) == {item}
