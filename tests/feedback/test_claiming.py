import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlmodel import Session

from feedback.claiming import (
    MAX_FAILURES,
    add_manual_job,
    answer_jobs,
    cancel_jobs,
    claim_jobs,
    find_unlaunched_job,
    is_rerun_by_hand,
    list_unanswered_runs,
    release_jobs,
    split_jobs,
    store_launched_run,
)
from feedback.consolidation import Candidate, add_consolidation
from feedback.time_limits import utc_now
from registry.outcome import Corrections, Decision, DocumentChange, Effect, Outcome
from tests.feedback.jobs import add_feedback, find_waiting_job, outcome


def test_run_claims_all_waiting_jobs_and_the_next_run_none(session: Session) -> None:
    first, second = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    assert {job.id for job in claim_jobs(session, "run-1", first.id)} == {first.id, second.id}
    answer_jobs(session, [first.id, second.id], outcome())
    assert claim_jobs(session, "run-2", second.id) == []


def test_two_runs_at_once_do_not_claim_the_same_job(engine: Engine, session: Session) -> None:
    add_feedback(session, "a")
    session.commit()
    assert len(claim_jobs(session, "run-1", None)) == 1

    def claim_beside() -> int:
        with Session(engine) as other, other.begin():
            return len(claim_jobs(other, "run-2", None))

    with ThreadPoolExecutor() as pool:
        claimed_beside = pool.submit(claim_beside)
        time.sleep(0.5)
        session.commit()
    assert claimed_beside.result() == 0


def test_run_again_claims_the_same_jobs_until_they_are_finished(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    for _ in range(2):
        assert [claimed.id for claimed in claim_jobs(session, "run-1", job.id)] == [job.id]


def test_run_claims_its_own_job_from_a_failed_run(session: Session) -> None:
    first, second = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    claim_jobs(session, "run-1", first.id)
    assert [job.id for job in claim_jobs(session, "run-2", second.id)] == [second.id]


def test_job_of_a_failed_run_waits_again_with_the_reason(session: Session) -> None:
    job, other = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    job.launched_run_id = "run-1"
    session.add(job)
    claim_jobs(session, "run-1", job.id)
    assert list(list_unanswered_runs(session)) == ["run-1"]
    released = release_jobs(session, "run-1", "the disk is full")
    assert {job.id: job.failures for job in released} == {job.id: 1, other.id: 1}
    assert release_jobs(session, "run-1", "the disk is full") == []
    session.refresh(job)
    assert [job.launched_run_id, job.claiming_run_id, job.last_failure] == [None, None, "the disk is full"]
    assert find_waiting_job(session) == job


def test_two_processes_that_see_the_same_failed_run_count_it_once(engine: Engine, session: Session) -> None:
    job, _ = add_feedback(session, "a")
    store_launched_run(session, job.id, 0, "run-1")
    session.commit()
    assert list(list_unanswered_runs(session)) == ["run-1"]
    assert len(release_jobs(session, "run-1", "the disk is full")) == 1

    def release_beside() -> int:
        with Session(engine) as other, other.begin():
            seen = list_unanswered_runs(other)
            return sum(len(release_jobs(other, run_id, "the disk is full")) for run_id in seen)

    with ThreadPoolExecutor() as pool:
        released_beside = pool.submit(release_beside)
        time.sleep(0.5)
        session.commit()
    assert released_beside.result() == 0
    session.refresh(job)
    assert job.failures == 1


def test_run_whose_failure_was_counted_before_its_launch_was_stored_is_not_counted_again(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    store_launched_run(session, job.id, 0, "run-1")
    release_jobs(session, "run-1", "the disk is full")
    store_launched_run(session, job.id, 0, "run-1")  # by a second process, to which Prefect gave the same run
    assert list(list_unanswered_runs(session)) == []


def test_paused_job_is_passed_over_until_its_pause_ends_or_the_clock_is_set_back(session: Session) -> None:
    paused, other = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    paused.paused_until = now + timedelta(seconds=300)
    session.add(paused)
    found = [
        find_unlaunched_job(session, now + timedelta(seconds=seconds), longest_pause_seconds=300)
        for seconds in (-3600, -1, 0, 299, 300)
    ]
    assert found == [paused, paused, other, other, paused]


def test_job_that_failed_twice_is_not_claimed_by_runs_of_other_jobs(session: Session) -> None:
    poison, other = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    for number in range(2):
        claim_jobs(session, f"run-{number}", poison.id)
        release_jobs(session, f"run-{number}", "it always fails")
    fresh = add_feedback(session, "c")[0]
    assert {job.id for job in claim_jobs(session, "run-2", fresh.id)} == {fresh.id}
    assert {job.id for job in claim_jobs(session, "run-3", poison.id)} == {poison.id, other.id}


def test_jobs_that_failed_together_are_claimed_half_as_many_each_time(session: Session) -> None:
    suspects = [add_feedback(session, str(number))[0] for number in range(40)]
    sizes = []
    for number in range(9):
        claimed = claim_jobs(session, f"run-{number}", suspects[0].id)
        sizes.append(len(claimed))
        release_jobs(session, f"run-{number}", "the disk is full")
    assert sizes == [40, 40, 40, 32, 16, 8, 4, 2, 1]


def test_job_is_answered_with_the_reason_after_many_runs(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    for number in range(MAX_FAILURES):
        claim_jobs(session, f"run-{number}", job.id)
        release_jobs(session, f"run-{number}", "MLflow is gone")
    session.refresh(job)
    assert job.outcome
    assert job.outcome.decision == Decision.FAILED
    assert "MLflow is gone" in job.outcome.reason
    assert find_waiting_job(session) is None


def test_run_that_refused_its_job_may_be_run_again(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    claim_jobs(session, "run-1", job.id)
    refusal = Outcome(decision=Decision.FAILED, reason="because", flow_run_id="run-1")
    answer_jobs(session, [job.id], refusal)
    assert claim_jobs(session, "run-2", None) == []
    assert [claimed.id for claimed in claim_jobs(session, "run-1", job.id)] == [job.id]


def test_run_that_was_cancelled_before_it_claimed_its_job_may_be_run_again(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    job.launched_run_id = "run"
    session.flush()
    cancel_jobs(session, "run")
    assert claim_jobs(session, "other", None) == []
    assert [claimed.id for claimed in claim_jobs(session, "run", job.id)] == [job.id]


def test_answered_job_run_by_another_run_is_a_rerun_by_hand(session: Session) -> None:
    job, document_id = add_feedback(session, "a")
    job.launched_run_id = "own"
    claim_jobs(session, "own", job.id)
    assert not is_rerun_by_hand(session, job.id, "other")
    answer_jobs(session, [job.id], outcome())
    assert is_rerun_by_hand(session, job.id, "other")
    assert not is_rerun_by_hand(session, job.id, "own")
    made = {add_manual_job(session, [document_id], "Prefect UI", "other") for _ in range(2)}
    assert len(made) == 1


def test_consolidation_is_claimed_only_by_its_own_run_and_with_no_feedback(session: Session) -> None:
    handed_over = add_consolidation(session, "run", Candidate("mlflow-run", 0, "All of it."))
    job, _ = add_feedback(session, "a")
    assert [claimed.id for claimed in claim_jobs(session, "run-1", None)] == [job.id]
    suspect, later = add_feedback(session, "b")[0], add_feedback(session, "c")[0]
    handed_over.failures = suspect.failures = 2
    session.add_all([handed_over, suspect])
    assert [claimed.id for claimed in claim_jobs(session, "run-2", handed_over.id)] == [handed_over.id]
    handed_over.claiming_run_id = None
    assert [claimed.id for claimed in claim_jobs(session, "run-3", suspect.id)] == [suspect.id]
    assert [claimed.id for claimed in claim_jobs(session, "run-4", later.id)] == [later.id]


def test_refused_batch_is_tried_in_parts_until_only_the_bad_job_is_refused_alone(session: Session) -> None:
    jobs = [add_feedback(session, str(number))[0] for number in range(12)]
    bad, sizes = jobs[7].id, list[int]()
    while waiting := find_waiting_job(session):
        claimed = [job.id for job in claim_jobs(session, f"run-{len(sizes)}", waiting.id)]
        sizes.append(len(claimed))
        assert len(sizes) <= 12
        if bad in claimed and len(claimed) > 1:
            split_jobs(session, claimed, "Worse.")
        else:
            answer_jobs(session, claimed, outcome(Decision.NOT_PROMOTED if bad in claimed else Decision.PROMOTED))
    session.expire_all()
    decisions = [job.outcome.decision for job in jobs if job.outcome]
    assert decisions.count(Decision.PROMOTED) == 11
    assert decisions[7] == Decision.NOT_PROMOTED
    assert sorted(sizes) == [1, 1, 2, 2, 4, 4, 4, 12]


def test_job_refused_together_with_others_tells_so_and_is_claimed_by_no_other_feedback(session: Session) -> None:
    refused = [add_feedback(session, name)[0].id for name in "ab"]
    for job in claim_jobs(session, "run-1", refused[0]):
        job.paused_until = datetime.now(UTC) + timedelta(seconds=300)
        session.add(job)
    split_jobs(session, refused, "Worse.")
    fresh = add_feedback(session, "c")[0].id
    waiting = find_waiting_job(session)
    assert waiting
    assert waiting.paused_until is None
    assert waiting.last_failure == "Refused together with 1 other jobs, so each part is tried alone. Worse."
    assert [job.id for job in claim_jobs(session, "run-2", fresh)] == [fresh]
    assert [job.id for job in claim_jobs(session, "run-3", refused[1])] == [refused[1]]


def test_each_job_of_a_run_is_told_what_its_own_corrections_did(session: Session) -> None:
    jobs = [add_feedback(session, name) for name in "ab"]
    by_document = {
        document_id: Corrections(corrections=3, reproduced=number) for number, (_, document_id) in enumerate(jobs, 1)
    }
    changes = [DocumentChange(document_id="c", type="party", improved=1, worsened=0)]
    learned = [document_id for _, document_id in jobs]
    update = {"effect": Effect.summarise(by_document, changes), "training_documents": learned}
    answer_jobs(session, [job.id for job, _ in jobs], outcome().model_copy(update=update))
    session.expire_all()
    for number, (job, document_id) in enumerate(jobs, 1):
        assert job.outcome
        assert job.outcome.effect
        assert job.outcome.effect.summary == (
            f"{number} of 3 corrected values are read right now; in 1 other document, 1 became right and 0 wrong."
        )
        assert job.outcome.training_documents == [document_id]


def test_first_answer_has_its_time_and_the_same_again_keeps_it(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    before = utc_now()
    answer_jobs(session, [job.id], outcome())
    session.refresh(job)
    first = job.answered_at
    assert first
    assert before <= first <= utc_now()
    answer_jobs(session, [job.id], outcome())  # the task is retried
    session.refresh(job)
    assert job.answered_at == first
    answer_jobs(session, [job.id], outcome(Decision.FAILED))
    session.refresh(job)
    assert job.answered_at > first


def test_cancelled_job_and_one_that_failed_for_good_have_the_time_of_their_answer(session: Session) -> None:
    cancelled, failed = add_feedback(session, "a")[0], add_feedback(session, "b")[0]
    cancelled.launched_run_id, failed.launched_run_id, failed.failures = "run-1", "run-2", MAX_FAILURES - 2
    session.flush()
    cancel_jobs(session, "run-1")
    release_jobs(session, "run-2", "because")
    session.expire_all()
    assert (cancelled.answered_at is None, failed.answered_at) == (False, None)
    failed.launched_run_id = "run-3"
    session.flush()
    release_jobs(session, "run-3", "because")
    session.expire_all()
    assert failed.answered_at is not None
