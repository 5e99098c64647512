"""What webhooks are told of the answers of runs and of promotions by persons."""

import json
from typing import Any

import pytest
from sqlmodel import Session, col, select

from feedback.announcements import announce_promotion
from feedback.claiming import answer_jobs, cancel_jobs, claim_jobs
from feedback.consolidation import Candidate, add_consolidation
from feedback.rollback import follow_promotion, notice_promotion
from registry.outcome import Decision, Outcome
from registry.tables import EventType, WebhookDelivery
from registry.webhooks import add_webhook
from tests.feedback.jobs import add_feedback, outcome
from tests.feedback.test_rollback import learn


@pytest.fixture
def subscribed(session: Session) -> None:
    add_webhook(session, "https://example.com/", EventType)
    session.flush()


def read_events(session: Session) -> list[tuple[str, dict[str, Any]]]:
    """Return the type and data of each event that is stored, and forget them."""
    session.flush()
    deliveries = session.exec(select(WebhookDelivery).order_by(col(WebhookDelivery.created_at))).all()
    bodies = [json.loads(delivery.body) for delivery in deliveries]
    assert [delivery.event_type for delivery in deliveries] == [body["type"] for body in bodies]
    for delivery in deliveries:
        session.delete(delivery)
    return [(body["type"], body["data"]) for body in bodies]


@pytest.mark.usefixtures("subscribed")
def test_promoted_run_announces_each_job_and_the_version(session: Session) -> None:
    (first, of_first), (second, _) = add_feedback(session, "a"), add_feedback(session, "b")
    answer_jobs(session, [first.id, second.id], outcome())
    live, other, promoted = read_events(session)
    assert live == (
        "feedback.live",
        {
            "job_id": first.id, "job_type": "feedback", "decision": "promoted", "version": "1", "reason": "because",
            "document_ids": [of_first], "document_ids_total": 1,
        },
    )  # fmt: skip
    assert (other[0], other[1]["job_id"]) == ("feedback.live", second.id)
    assert promoted == (
        "model.promoted",
        {
            "version": "1", "previous_version": None, "reason": "because", "set_aside_job_ids": [],
            "set_aside_job_ids_total": 0,
        },
    )  # fmt: skip


@pytest.mark.usefixtures("subscribed")
def test_refused_run_announces_each_job_and_no_version(session: Session) -> None:
    job = learn(session, 2, 1, Decision.NOT_PROMOTED)
    ((event_type, data),) = read_events(session)
    assert (event_type, data["job_id"], data["decision"], data["version"]) == (
        "feedback.set_aside", job.id, "not_promoted", "2",
    )  # fmt: skip


@pytest.mark.usefixtures("subscribed")
def test_answer_that_is_stored_again_by_a_retry_is_announced_once(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    for _ in range(2):
        answer_jobs(session, [job.id], outcome())
    assert [event_type for event_type, _ in read_events(session)] == ["feedback.live", "model.promoted"]


@pytest.mark.usefixtures("subscribed")
def test_job_that_fails_and_then_succeeds_is_announced(session: Session) -> None:
    job, _ = add_feedback(session, "a")
    answer_jobs(session, [job.id], Outcome(decision=Decision.FAILED, reason="because", flow_run_id="run"))
    claim_jobs(session, "run", job.id)
    cancel_jobs(session, "run")
    assert read_events(session) == []
    answer_jobs(session, [job.id], outcome())
    assert [event_type for event_type, _ in read_events(session)] == ["feedback.live", "model.promoted"]


@pytest.mark.usefixtures("subscribed")
def test_consolidation_announces_its_version_and_no_feedback(session: Session) -> None:
    handed_over = add_consolidation(session, "run", Candidate("mlflow-run", 0, "All of it."))
    answer_jobs(session, [handed_over.id], outcome())
    assert [event_type for event_type, _ in read_events(session)] == ["model.promoted"]


@pytest.mark.usefixtures("subscribed")
def test_rollback_and_promotion_back_announce_their_jobs_without_the_words_of_a_person(session: Session) -> None:
    _, second, third = learn(session, 1, None), learn(session, 2, 1), learn(session, 3, 2)
    read_events(session)
    follow_promotion(session, "1", "ana (Acme Ltd was wrong)", "3")
    events = read_events(session)
    assert "Acme" not in str(events)
    reason = "A person went back to version 1."
    assert [(event_type, data.get("job_id"), data["version"], data["reason"]) for event_type, data in events[:2]] == [
        ("feedback.set_aside", second.id, "2", reason), ("feedback.set_aside", third.id, "3", reason),
    ]  # fmt: skip
    event_type, data = events[2]
    assert (event_type, data["version"], data["previous_version"]) == ("model.rolled_back", "1", "3")
    assert data["set_aside_job_ids"] == [second.id, third.id]
    follow_promotion(session, "3", "ana", "1")
    events = read_events(session)
    assert [event_type for event_type, _ in events] == ["feedback.live", "feedback.live", "model.promoted"]
    assert events[0][1]["reason"] == "A person promoted version 3."


@pytest.mark.usefixtures("subscribed")
def test_version_that_no_job_made_is_announced_and_the_champion_again_is_not(session: Session) -> None:
    learn(session, 1, None)
    read_events(session)
    follow_promotion(session, "7", "ana", "1")
    assert [(event_type, data["version"]) for event_type, data in read_events(session)] == [("model.promoted", "7")]
    follow_promotion(session, "7", "ana", "7")
    assert read_events(session) == []


@pytest.mark.usefixtures("subscribed")
def test_alias_moved_in_mlflow_is_announced_once(session: Session) -> None:
    _, second = learn(session, 1, None), learn(session, 2, 1)
    read_events(session)
    notice_promotion(session, "1")
    events = read_events(session)
    assert [(event_type, data.get("job_id")) for event_type, data in events] == [
        ("feedback.set_aside", second.id), ("model.rolled_back", None),
    ]  # fmt: skip
    for champion in ("1", "7", "7"):
        notice_promotion(session, champion)
    assert read_events(session) == []


@pytest.mark.usefixtures("subscribed")
def test_version_ten_is_later_than_version_nine_and_long_lists_end(session: Session) -> None:
    announce_promotion(session, "10", "9", "because", ["x" * 36] * 5_000)
    announce_promotion(session, "9", "10", "because")
    assert session.exec(select(WebhookDelivery)).first()
    lengths = [len(delivery.body) for delivery in session.exec(select(WebhookDelivery))]
    assert max(lengths) < 20_000
    (promoted, data), (rolled_back, _) = read_events(session)
    assert (promoted, rolled_back) == ("model.promoted", "model.rolled_back")
    assert (len(data["set_aside_job_ids"]), data["set_aside_job_ids_total"]) == (400, 5_000)


def test_nothing_is_stored_without_a_webhook_for_it(session: Session) -> None:
    learn(session, 1, None)
    learn(session, 2, 1)
    follow_promotion(session, "1", "ana", "2")
    assert read_events(session) == []
    add_webhook(session, "https://example.com/", [EventType.MODEL_ROLLED_BACK])
    session.flush()
    follow_promotion(session, "2", "ana", "1")
    assert read_events(session) == []
    follow_promotion(session, "1", "ana", "2")
    assert [event_type for event_type, _ in read_events(session)] == ["model.rolled_back"]
