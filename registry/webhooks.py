"""Queries on webhooks and on their deliveries, the outbox of events."""

import json
import secrets
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlmodel import Session, col, delete, func, select, update

from registry.errors import ConflictError, NotFoundError
from registry.tables import EventType, Webhook, WebhookDelivery

MOST_WEBHOOKS = 10
PAUSES_SECONDS = (5, 30, 120, 600, 3_600, 21_600, 86_400)  # after each failed attempt; after one more, it is given up
_CLAIM = timedelta(minutes=1)  # an attempt takes ten seconds; one without a result by then is made again
_KEPT = timedelta(days=30)
_GONE = 410


def add_webhook(session: Session, url: str, event_types: Iterable[EventType]) -> Webhook:
    """Add a webhook with a new secret; raises ConflictError if there are as many as are allowed."""
    if session.exec(select(func.count()).select_from(Webhook)).one() >= MOST_WEBHOOKS:
        raise ConflictError(f"There are {MOST_WEBHOOKS} webhooks already: delete one first")
    secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    webhook = Webhook(url=url, event_types=sorted(set(event_types)), secret=secret)
    session.add(webhook)
    return webhook


def list_webhooks(session: Session) -> Sequence[Webhook]:
    """Return all webhooks in the order of their creation."""
    return session.exec(select(Webhook).order_by(col(Webhook.created_at))).all()


def get_webhook(session: Session, webhook_id: str) -> Webhook:
    """Return a webhook; raises NotFoundError."""
    webhook = session.get(Webhook, webhook_id)
    if webhook is None:
        raise NotFoundError(f"There is no webhook {webhook_id}")
    return webhook


def list_deliveries(
    session: Session, webhook_id: str, offset: int, limit: int
) -> tuple[Sequence[WebhookDelivery], int]:
    """Return one page of a webhook's deliveries, newest first, and the number of all."""
    of_webhook = col(WebhookDelivery.webhook_id) == webhook_id
    query = select(WebhookDelivery).where(of_webhook).order_by(col(WebhookDelivery.created_at).desc())
    count = select(func.count()).select_from(WebhookDelivery).where(of_webhook)
    return session.exec(query.offset(offset).limit(limit)).all(), session.exec(count).one()


def list_subscribers(session: Session, event_type: EventType) -> list[Webhook]:
    """Return the webhooks that are told this type of event."""
    enabled = session.exec(select(Webhook).where(col(Webhook.disabled_at).is_(None))).all()
    return [webhook for webhook in enabled if event_type in webhook.event_types]


def add_event(session: Session, webhooks: Sequence[Webhook], event_type: EventType, data: dict[str, Any]) -> None:
    """Store an event for each of these webhooks; it is sent once the session's transaction is committed."""
    event_id = str(uuid4())
    body = json.dumps({"type": event_type, "timestamp": datetime.now(UTC).isoformat(), "data": data})
    session.add_all(
        WebhookDelivery(webhook_id=webhook.id, event_id=event_id, event_type=event_type, body=body)
        for webhook in webhooks
    )


def list_due_webhooks(session: Session, now: datetime) -> Sequence[str]:
    """Return the ids of the webhooks that an attempt is due for."""
    query = select(WebhookDelivery.webhook_id).where(col(WebhookDelivery.next_attempt_at) <= now)
    return session.exec(query.distinct()).all()


def claim_delivery(session: Session, webhook_id: str, now: datetime) -> WebhookDelivery | None:
    """Claim the delivery of a webhook that is due first, and count the attempt.

    If two processes claim at once, one of them gets it; the other may get none.
    """
    is_due = col(WebhookDelivery.next_attempt_at) <= now
    first = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == webhook_id, is_due)
    first = first.order_by(col(WebhookDelivery.next_attempt_at)).limit(1)
    claimed = session.exec(
        update(WebhookDelivery)
        .where(col(WebhookDelivery.id) == first.scalar_subquery(), is_due)
        .values(attempts=WebhookDelivery.attempts + 1, next_attempt_at=now + _CLAIM)
        .returning(WebhookDelivery)
        .execution_options(populate_existing=True)
    )
    return claimed.scalars().first()


def store_attempt(
    session: Session, delivery: WebhookDelivery, now: datetime, status: int | None, error: str | None
) -> bool:
    """Store how an attempt ended, and tell whether it delivered the event, which 2xx says.

    If it did not, the next one follows after a pause, or none after the last pause.

    The webhook is disabled if it answered 410 Gone. Its deliveries older than 30 days are deleted.
    """
    is_delivered = status is not None and 200 <= status < 300
    pauses = PAUSES_SECONDS[delivery.attempts - 1 : delivery.attempts]
    next_attempt_at = now + timedelta(seconds=pauses[0]) if pauses and not is_delivered else None
    session.exec(
        update(WebhookDelivery)
        .where(col(WebhookDelivery.id) == delivery.id, col(WebhookDelivery.delivered_at).is_(None))
        .values(
            last_status=status,
            last_error=error,
            next_attempt_at=next_attempt_at,
            delivered_at=now if is_delivered else None,
        )
    )
    of_webhook = col(WebhookDelivery.webhook_id) == delivery.webhook_id
    if status == _GONE:
        session.exec(update(Webhook).where(col(Webhook.id) == delivery.webhook_id).values(disabled_at=now))
        session.exec(update(WebhookDelivery).where(of_webhook).values(next_attempt_at=None))
    session.exec(delete(WebhookDelivery).where(of_webhook, col(WebhookDelivery.created_at) < now - _KEPT))
    return is_delivered
