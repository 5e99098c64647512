"""The sender: a thread that sends what webhooks are to be told, one delivery of each webhook at a time."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from urllib.parse import urlsplit

import httpcore
import httpx
from sqlalchemy import Engine
from sqlmodel import Session
from standardwebhooks.webhooks import Webhook as Signer

from feedback.public_addresses import PublicBackend
from feedback.time_limits import utc_now
from registry.database import translate_database_errors
from registry.errors import InvalidInputError, UnavailableError
from registry.tables import Webhook, WebhookDelivery
from registry.webhooks import MOST_WEBHOOKS, claim_delivery, get_webhook, list_due_webhooks, store_attempt

_LOOK_SECONDS = 2
_CONNECT_SECONDS = 3
_ATTEMPT_SECONDS = 10
_SHOWN_CHARACTERS = 200
_logger = logging.getLogger(__name__)


class WebhookSender:
    """Sends events as Standard Webhooks 1.0.0 says, when they are due.

    A webhook that is slow holds up only its own deliveries: each has a thread of its own. Several API processes may
    each have a sender: an attempt belongs to the one that claims the delivery's row. An event is sent again if its
    receiver answers anything but 2xx, or if the process dies before it stores the answer.
    """

    def __init__(
        self,
        engine: Engine,
        allow_private: bool,
        clock: Callable[[], datetime] = utc_now,
        attempt_seconds: float = _ATTEMPT_SECONDS,
    ) -> None:
        self._engine, self._clock, self._attempt_seconds = engine, clock, attempt_seconds
        self._backend = None if allow_private else PublicBackend()
        self._tls = httpx.create_ssl_context()
        self._workers = ThreadPoolExecutor(MOST_WEBHOOKS, "webhook")
        self._sending: dict[str, Future[None]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for the answers that are under way."""
        self._stopped.set()
        self._thread.join()
        self._workers.shutdown()

    def start_due(self) -> list[Future[None]]:
        """Start to send the deliveries of each webhook that has due ones; return what is under way.

        Raises UnavailableError if the database does not answer.
        """
        with translate_database_errors(), Session(self._engine) as session:
            due = list_due_webhooks(session, self._clock())
        self._sending = {webhook_id: sent for webhook_id, sent in self._sending.items() if not sent.done()}
        for webhook_id in due:
            if webhook_id not in self._sending:
                self._sending[webhook_id] = self._workers.submit(self._send_due, webhook_id)
        return list(self._sending.values())

    def _send_due(self, webhook_id: str) -> None:
        """Send the due deliveries of a webhook, up to the first that fails."""
        try:
            while not self._stopped.is_set() and self._send_first(webhook_id):
                pass
        except UnavailableError as error:
            _logger.warning("What is due for webhook %s will be sent later: %s", webhook_id, error)
        except Exception:
            _logger.exception("Sending to webhook %s failed; the next attempt follows", webhook_id)

    def _send_first(self, webhook_id: str) -> bool:
        """Send the delivery that is due first; tell whether it was delivered."""
        with translate_database_errors(), Session(self._engine, expire_on_commit=False) as session:
            delivery = claim_delivery(session, webhook_id, self._clock())
            if delivery is None:
                return False
            webhook = get_webhook(session, webhook_id)
            session.commit()
        status, error = self._attempt(webhook, delivery)
        with translate_database_errors(), Session(self._engine) as session:
            is_delivered = store_attempt(session, delivery, self._clock(), status, error)
            session.commit()
        return is_delivered

    def _attempt(self, webhook: Webhook, delivery: WebhookDelivery) -> tuple[int | None, str | None]:
        """Return the status of the answer, or why there is none."""
        try:
            return asyncio.run(self._post(webhook, delivery)), None
        except TimeoutError:
            return None, f"No answer within {self._attempt_seconds:g} seconds"
        except InvalidInputError as error:
            return None, str(error)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            return None, f"{type(error).__name__}: {error}".replace("\0", "")[:_SHOWN_CHARACTERS]

    async def _post(self, webhook: Webhook, delivery: WebhookDelivery) -> int:
        """Post a delivery; the answer's body is not read, and a redirect is not followed."""
        now = self._clock()
        headers: dict[bytes | str, bytes | str] = {
            "Host": urlsplit(webhook.url).netloc,
            "User-Agent": "contract-feedback",
            "Content-Type": "application/json",
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Signer(webhook.secret).sign(delivery.event_id, now, delivery.body),
        }
        async with (
            asyncio.timeout(self._attempt_seconds),
            httpcore.AsyncConnectionPool(self._tls, network_backend=self._backend) as pool,
            pool.stream(
                "POST",
                webhook.url,
                headers=headers,
                content=delivery.body.encode(),
                extensions={"timeout": {"connect": _CONNECT_SECONDS}},
            ) as answer,
        ):
            return answer.status

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                self.start_due()
            except UnavailableError as error:
                _logger.warning("Webhooks will be told later: %s", error)
            except Exception:
                _logger.exception("Looking for what webhooks are to be told failed; the next look follows")
