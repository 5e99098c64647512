"""The sender, with an HTTP server that receives; a clock that is advanced takes the place of the pauses."""

from collections.abc import Iterator
from concurrent.futures import wait
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from feedback.webhook_sender import WebhookSender
from registry.database import build_engine
from registry.settings import Settings
from registry.tables import EventType, Webhook, WebhookDelivery
from registry.webhooks import PAUSES_SECONDS, add_event, add_webhook, list_subscribers
from tests.feedback.test_launcher import Clock
from tests.receiver import Receiver, receive

PROMOTED = EventType.MODEL_PROMOTED


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sender(engine: Engine, clock: Clock) -> WebhookSender:
    """A sender that looks only when told to."""
    return WebhookSender(engine, allow_private=True, clock=clock.utc, attempt_seconds=3)


def subscribe(session: Session, url: str) -> Webhook:
    webhook = add_webhook(session, url, [PROMOTED])
    session.commit()
    return webhook


def tell(session: Session, *versions: str) -> None:
    """Store events that are due."""
    for version in versions:
        add_event(session, list_subscribers(session, PROMOTED), PROMOTED, {"version": version})
    session.commit()


def send(sender: WebhookSender) -> None:
    wait(sender.start_due())


def read_log(session: Session) -> WebhookDelivery:
    session.expire_all()
    return session.exec(select(WebhookDelivery)).one()


def test_receiver_that_fails_twice_gets_the_event_the_third_time_with_a_valid_signature(
    session: Session, sender: WebhookSender, clock: Clock, receiver: Receiver
) -> None:
    webhook = subscribe(session, f"{receiver.url}/events?of=us")
    tell(session, "7")
    receiver.statuses[:] = [500, 503]
    counts = []
    for seconds in (0, 4, 1, 29, 1, 90_000):
        clock.advance(seconds)
        send(sender)
        counts.append(len(receiver.bodies))
    assert counts == [1, 1, 2, 2, 3, 3]
    events = receiver.verify(webhook.secret)
    assert [(event["type"], event["data"]) for event in events] == [("model.promoted", {"version": "7"})] * 3
    assert datetime.fromisoformat(events[0]["timestamp"]).utcoffset() == timedelta(0)
    log = read_log(session)
    assert {sent["webhook-id"] for sent in receiver.headers} == {log.event_id}
    assert receiver.headers[0]["webhook-timestamp"] < receiver.headers[2]["webhook-timestamp"]
    assert (log.attempts, log.last_status, log.last_error, log.next_attempt_at) == (3, 204, None, None)
    assert log.delivered_at


def test_running_sender_sends_what_is_stored(session: Session, sender: WebhookSender, receiver: Receiver) -> None:
    webhook = subscribe(session, receiver.url)
    tell(session, "1", "2", "3")
    sender.start()
    receiver.wait_for(3)
    sender.stop()
    assert [event["data"]["version"] for event in receiver.verify(webhook.secret)] == ["1", "2", "3"]


def test_event_that_always_fails_is_given_up_after_growing_pauses(
    session: Session, sender: WebhookSender, clock: Clock, receiver: Receiver
) -> None:
    subscribe(session, receiver.url)
    tell(session, "7")
    receiver.statuses[:] = [500] * 20
    send(sender)
    for number, seconds in enumerate(PAUSES_SECONDS, start=2):
        clock.advance(seconds - 1)
        send(sender)
        assert len(receiver.bodies) == number - 1
        clock.advance(1)
        send(sender)
        assert len(receiver.bodies) == number
    log = read_log(session)
    assert (log.attempts, log.last_status, log.next_attempt_at, log.delivered_at) == (8, 500, None, None)


def test_failure_ends_the_turn_so_that_a_broken_receiver_is_not_sent_everything_at_once(
    session: Session, sender: WebhookSender, receiver: Receiver
) -> None:
    subscribe(session, receiver.url)
    tell(session, "1", "2", "3")
    receiver.statuses[:] = [500]
    send(sender)
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_private_address_is_sent_nothing(session: Session, engine: Engine, receiver: Receiver, host: str) -> None:
    subscribe(session, receiver.url.replace("127.0.0.1", host))
    tell(session, "7")
    send(WebhookSender(engine, allow_private=False))
    log = read_log(session)
    assert (receiver.bodies, log.attempts) == ([], 1)
    assert "has a private address" in str(log.last_error)
    assert log.next_attempt_at


def test_redirect_is_not_followed(session: Session, sender: WebhookSender, receiver: Receiver) -> None:
    subscribe(session, receiver.url)
    tell(session, "7")
    receiver.statuses[:] = [302, 307]
    send(sender)
    log = read_log(session)
    assert (len(receiver.bodies), log.last_status, log.delivered_at) == (1, 302, None)
    assert log.next_attempt_at


def test_gone_disables_the_webhook(session: Session, sender: WebhookSender, clock: Clock, receiver: Receiver) -> None:
    webhook = subscribe(session, receiver.url)
    tell(session, "1", "2")
    receiver.statuses[:] = [410]
    send(sender)
    tell(session, "3")
    clock.advance(1_000_000)
    send(sender)
    session.refresh(webhook)
    assert webhook.disabled_at
    assert len(receiver.bodies) == 1
    assert [each.next_attempt_at for each in session.exec(select(WebhookDelivery))] == [None, None]


def test_receiver_that_never_ends_its_answer_holds_up_only_itself(
    session: Session, sender: WebhookSender, receiver: Receiver
) -> None:
    with receive() as slow:
        slow.drips = True
        webhook = subscribe(session, slow.url)
        tell(session, "1", "2")
        under_way = sender.start_due()
        slow.wait_for(1)
        subscribe(session, receiver.url)
        tell(session, "3")
        sender.start_due()
        receiver.wait_for(1)
        first = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.attempts == 1)
        assert session.exec(first).one().last_error is None
        wait(under_way, timeout=20)
        assert len(slow.bodies) == 1
    session.expire_all()
    assert session.exec(first).one().last_error == "No answer within 3 seconds"


def test_refused_connection_is_logged_and_tried_again(session: Session, sender: WebhookSender) -> None:
    subscribe(session, "http://127.0.0.1:9/")
    tell(session, "7")
    send(sender)
    log = read_log(session)
    assert log.last_error == "ConnectError: All connection attempts failed"
    assert log.next_attempt_at


def test_two_senders_send_each_event_once(session: Session, settings: Settings, receiver: Receiver) -> None:
    webhook = subscribe(session, receiver.url)
    versions = [str(number) for number in range(40)]
    tell(session, *versions)
    engines = [build_engine(settings) for _ in range(2)]
    senders = [WebhookSender(each, allow_private=True) for each in engines]
    while under_way := [sent for sender in senders for sent in sender.start_due()]:
        wait(under_way)
    assert sorted(event["data"]["version"] for event in receiver.verify(webhook.secret)) == sorted(versions)
    for each in engines:
        each.dispose()


def test_secret_is_not_logged(
    session: Session, sender: WebhookSender, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    webhook = subscribe(session, receiver.url)
    tell(session, "7")
    send(sender)
    assert receiver.bodies
    assert "connect_tcp.started" in caplog.text
    assert webhook.secret.removeprefix("whsec_") not in caplog.text
