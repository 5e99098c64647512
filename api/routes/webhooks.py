"""Webhooks: where events are sent, and the log of deliveries."""

from fastapi import APIRouter, status

from api.authentication import GuardedRoute
from api.dependencies import AdministratorDep, LimitDep, OffsetDep, ServicesDep, SessionDep
from api.errors import document_errors
from api.schemas import Page, WebhookCreate, WebhookCreated, WebhookDeliveryPublic, WebhookPublic
from feedback.public_addresses import resolve_public
from registry import webhooks as queries
from registry.text_types import Text

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=GuardedRoute)


@router.post("", status_code=status.HTTP_201_CREATED, responses=document_errors(400, 409, 413))
def create_webhook(
    new: WebhookCreate, session: SessionDep, services: ServicesDep, _: AdministratorDep
) -> WebhookCreated:
    """Have events sent to a URL: `POST`, signed as [Standard Webhooks](https://www.standardwebhooks.com) says.

    An event that is not answered with 2xx within ten seconds is sent again after 5 and 30 seconds, 2 and 10 minutes,
    1, 6 and 24 hours; a redirect is not followed. It may come twice: remember its `webhook-id`. 410 disables the
    webhook. Its host must have public addresses only, unless the installation allows private ones.

    `data` has, for `feedback.live` and `feedback.set_aside`: `job_id`, `job_type`, `document_ids`, `decision`,
    `version`, `reason`; for `model.promoted` and `model.rolled_back`: `version`, `previous_version`, `reason`,
    `set_aside_job_ids`. Lists end after 400 ids; `…_total` is their length.
    """
    if not services.settings.webhook_private_addresses:
        resolve_public((new.url.host or "").strip("[]"))
    webhook = queries.add_webhook(session, str(new.url), new.event_types)
    session.commit()
    return WebhookCreated.model_validate(webhook)


@router.get("")
def read_webhooks(session: SessionDep, _: AdministratorDep) -> list[WebhookPublic]:
    """List the webhooks in the order of their creation."""
    return [WebhookPublic.model_validate(webhook) for webhook in queries.list_webhooks(session)]


@router.delete("/{webhook_id}", status_code=status.HTTP_204_NO_CONTENT, responses=document_errors(404, 409))
def delete_webhook(webhook_id: Text, session: SessionDep, _: AdministratorDep) -> None:
    """Delete a webhook with its deliveries; nothing more is sent to it."""
    session.delete(queries.get_webhook(session, webhook_id))
    session.commit()


@router.get("/{webhook_id}/deliveries", responses=document_errors(404))
def read_deliveries(
    webhook_id: Text, session: SessionDep, _: AdministratorDep, offset: OffsetDep = 0, limit: LimitDep = 50
) -> Page[WebhookDeliveryPublic]:
    """List what was sent to a webhook in the last 30 days, or waits to be sent, newest first."""
    queries.get_webhook(session, webhook_id)
    found, total = queries.list_deliveries(session, webhook_id, offset, limit)
    items = [WebhookDeliveryPublic.model_validate(delivery) for delivery in found]
    return Page(items=items, total=total, offset=offset, limit=limit)
