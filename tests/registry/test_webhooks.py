import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from registry.errors import ConflictError
from registry.tables import EventType, Webhook, WebhookDelivery
from registry.webhooks import (
    MOST_WEBHOOKS,
    add_event,
    add_webhook,
    claim_delivery,
    list_due_webhooks,
    list_subscribers,
    store_attempt,
)

PROMOTED = EventType.MODEL_PROMOTED


def tell(session: Session) -> tuple[Webhook, datetime]:
    """Store an event for a new webhook; return that and a time at which it is due."""
    webhook = add_webhook(session, "https://example.com/", [PROMOTED])
    session.flush()
    add_event(session, [webhook], PROMOTED, {})
    session.commit()
    return webhook, datetime.now(UTC)


def test_webhooks_are_told_only_what_they_subscribed_to(session: Session) -> None:
    webhook = add_webhook(session, "https://example.com/", [PROMOTED, PROMOTED])
    assert list_subscribers(session, PROMOTED) == [webhook]
    assert list_subscribers(session, EventType.FEEDBACK_LIVE) == []


def test_no_more_webhooks_than_allowed_are_added(session: Session) -> None:
    secrets = {add_webhook(session, "https://example.com/", [PROMOTED]).secret for _ in range(MOST_WEBHOOKS)}
    assert len(secrets) == MOST_WEBHOOKS
    with pytest.raises(ConflictError, match="10 webhooks already"):
        add_webhook(session, "https://example.com/", [PROMOTED])


def test_two_processes_at_once_do_not_claim_the_same_delivery(engine: Engine, session: Session) -> None:
    webhook, now = tell(session)
    assert list_due_webhooks(session, now) == [webhook.id]
    assert claim_delivery(session, webhook.id, now)

    def claim_beside() -> WebhookDelivery | None:
        with Session(engine) as other, other.begin():
            return claim_delivery(other, webhook.id, now)

    with ThreadPoolExecutor() as pool:
        claimed_beside = pool.submit(claim_beside)
        time.sleep(0.5)
        session.commit()
    assert claimed_beside.result() is None


def test_delivery_of_a_sender_that_died_is_due_again_after_a_minute(session: Session) -> None:
    webhook, now = tell(session)
    for seconds, attempts in ((0, 1), (59, None), (60, 2)):
        claimed = claim_delivery(session, webhook.id, now + timedelta(seconds=seconds))
        assert (claimed.attempts if claimed else None) == attempts


def test_late_failure_does_not_undo_a_delivery(session: Session) -> None:
    webhook, now = tell(session)
    claimed = claim_delivery(session, webhook.id, now)
    assert claimed
    assert store_attempt(session, claimed, now, 200, None)
    assert not store_attempt(session, claimed, now, None, "too late")
    session.refresh(claimed)
    assert (claimed.last_status, claimed.next_attempt_at, claimed.delivered_at) == (200, None, now)


def test_deliveries_older_than_thirty_days_are_deleted(session: Session) -> None:
    webhook, now = tell(session)
    for days in (29, 31):
        old = WebhookDelivery(webhook_id=webhook.id, event_id=str(days), event_type=PROMOTED, body="{}")
        old.created_at, old.next_attempt_at = now - timedelta(days=days), None
        session.add(old)
    claimed = claim_delivery(session, webhook.id, now)
    assert claimed
    store_attempt(session, claimed, now, 500, None)
    left = session.exec(select(WebhookDelivery.event_id).order_by(WebhookDelivery.event_id)).all()
    assert set(left) == {claimed.event_id, "29"}
