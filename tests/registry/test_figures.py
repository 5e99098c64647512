from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import Session

from feedback.claiming import answer_jobs, set_aside_documents
from registry.figures import read_figures
from registry.jobs import add_job
from registry.outcome import Decision
from registry.tables import EventType, Job, JobType
from registry.webhooks import add_event, add_webhook, claim_delivery, store_attempt
from tests.feedback.jobs import add_feedback, outcome


def add_answered(session: Session, decision: Decision, seconds: float, job_type: JobType = JobType.FEEDBACK) -> Job:
    """Add a job that was answered so long after it was stored."""
    job = add_job(session, job_type, [], "tester")
    answer_jobs(session, [job.id], outcome(decision))
    session.refresh(job)
    assert job.answered_at
    job.created_at = job.answered_at - timedelta(seconds=seconds)
    session.flush()
    return job


def test_jobs_are_counted_by_type_and_decision(session: Session) -> None:
    add_answered(session, Decision.PROMOTED, 1)
    add_answered(session, Decision.NOT_PROMOTED, 1)
    add_answered(session, Decision.NOT_PROMOTED, 1)
    add_answered(session, Decision.FAILED, 1, JobType.TRAINING_RUN)
    add_job(session, JobType.UNLEARNING, [], "tester")
    jobs = read_figures(session).jobs
    assert jobs.answered == {
        (JobType.FEEDBACK, Decision.PROMOTED): 1,
        (JobType.FEEDBACK, Decision.NOT_PROMOTED): 2,
        (JobType.TRAINING_RUN, Decision.FAILED): 1,
    }
    assert jobs.waiting == {JobType.UNLEARNING: 1}


def test_time_to_serve_counts_promoted_feedback_alone_and_for_good(session: Session) -> None:
    for seconds in (0.7, 2.4, 2.6, 700.5):
        add_answered(session, Decision.PROMOTED, seconds)
    add_answered(session, Decision.ROLLED_BACK, 4.2)
    add_answered(session, Decision.NOT_PROMOTED, 9)
    add_answered(session, Decision.PROMOTED, 9, JobType.TRAINING_RUN)
    jobs = read_figures(session).jobs
    assert jobs.served_within == {1: 1, 3: 2, 5: 1, 701: 1}
    assert jobs.served_seconds == pytest.approx(710.4, abs=0.01)


def test_promoted_feedback_without_a_time_is_counted_as_promoted_alone(session: Session) -> None:
    job = add_answered(session, Decision.PROMOTED, 1)
    job.answered_at = None  # an earlier release did not store it
    session.flush()
    jobs = read_figures(session).jobs
    assert (jobs.answered, jobs.served_within) == ({(JobType.FEEDBACK, Decision.PROMOTED): 1}, {})


def test_oldest_waiting_job_is_one_of_feedback(session: Session) -> None:
    assert read_figures(session).oldest_waiting is None
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    add_job(session, JobType.UNLEARNING, [], "tester").created_at = long_ago
    add_job(session, JobType.FEEDBACK, [], "tester").created_at = long_ago + timedelta(days=1)
    add_job(session, JobType.FEEDBACK, [], "tester")
    session.flush()
    assert read_figures(session).oldest_waiting == long_ago + timedelta(days=1)


def test_documents_set_aside_for_a_contradiction_are_counted(session: Session) -> None:
    job, document_id = add_feedback(session, "a")
    add_feedback(session, "b")
    set_aside_documents(session, [job.id], {document_id: "It contradicts."}, "run")
    assert read_figures(session).contradicted_documents == 1


def test_delivery_waits_until_it_is_delivered_or_given_up(session: Session) -> None:
    webhook = add_webhook(session, "https://example.com/", [EventType.MODEL_PROMOTED])
    session.flush()
    add_event(session, [webhook], EventType.MODEL_PROMOTED, {})
    session.flush()
    figures, now = read_figures(session), datetime.now(UTC)
    assert (figures.waiting_deliveries, figures.oldest_delivery and figures.oldest_delivery <= now) == (1, True)
    delivery = claim_delivery(session, webhook.id, now)
    assert delivery
    store_attempt(session, delivery, now, 204, None)
    figures = read_figures(session)
    assert (figures.waiting_deliveries, figures.oldest_delivery) == (0, None)
