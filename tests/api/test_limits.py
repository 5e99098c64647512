"""Limits on requests, annotations and waiting jobs, each a setting."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from registry.database import open_session
from registry.errors import InvalidInputError
from registry.keys import Scope, add_key
from registry.settings import Settings
from tests.api.conftest import Start

TEXT = "Acme Ltd pays Bell."


def upload(client: TestClient, text: str = TEXT) -> str:
    return str(client.post("/documents", files={"file": ("a.txt", text.encode())}).json()["id"])


def mark(value: str, name: str = "party", **fields: object) -> dict[str, object]:
    start = TEXT.index(value)
    return {"type": name, **fields, "value": value, "start": start, "end": start + len(value)}


def test_request_above_the_rate_limit_is_refused(start: Start) -> None:
    client = start(requests_per_minute=3)
    answers = [client.get("/documents") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert "3 requests a minute" in answers[-1].json()["detail"]
    assert answers[-1].headers["Retry-After"] == "60"


def test_uploads_that_wait_to_be_read_hold_up_no_other_request(
    start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, released = start(), threading.Event()

    def read_slowly(*_: object) -> None:
        released.wait(30)
        raise InvalidInputError("It takes too long")

    monkeypatch.setattr("api.documents.read_document", read_slowly)
    count = settings.database_connections + 10
    with ThreadPoolExecutor(count + 1) as pool:
        files = [{"file": ("a.txt", str(number).encode())} for number in range(count)]
        uploads = [pool.submit(client.post, "/documents", files=file) for file in files]
        try:
            assert pool.submit(client.get, "/documents").result(20).status_code == 200
        finally:
            released.set()
        assert {each.result().status_code for each in uploads} == {422}


def test_key_with_many_slow_requests_holds_up_no_other_key(
    start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, released = start(), threading.Event()
    document = upload(client)
    with open_session(settings) as session:
        other = add_key(session, "other", [Scope.READ])
    monkeypatch.setattr("api.routes.annotations.queries.list_annotations", lambda *_: released.wait(30) and [])
    count = settings.database_connections + 10
    with ThreadPoolExecutor(count) as pool:
        slow = [pool.submit(client.get, f"/documents/{document}/annotations") for _ in range(count)]
        try:
            headers = {"Authorization": f"Bearer {other}"}
            assert ThreadPoolExecutor(1).submit(client.get, "/documents", headers=headers).result(20).status_code == 200
        finally:
            released.set()
        assert {each.result().status_code for each in slow} == {200}


def test_annotation_above_the_limit_is_refused(start: Start) -> None:
    client = start(max_annotations=1)
    document = upload(client)
    both = {"annotations": [mark("Acme Ltd"), mark("Bell")]}
    assert client.post(f"/documents/{document}/feedback", json=both).status_code == 422
    assert client.post(f"/documents/{document}/annotations", json=mark("Bell")).status_code == 201
    refused = client.post(f"/documents/{document}/annotations", json=mark("Acme Ltd"))
    assert refused.status_code == 422
    assert "1 annotations at most" in refused.json()["detail"]
    label = {"type": "labels", "value": {"start": 0, "end": 4, "labels": ["party"]}, "from_name": "a", "to_name": "b"}
    other = {**label, "value": {"start": 14, "end": 18, "labels": ["party"]}}
    export = [{"data": {"text": TEXT}, "annotations": [{"result": [label, other]}]}]
    assert client.post(f"/documents/{document}/annotations/ingest", json=export).status_code == 422


def list_stored(client: TestClient, document: str) -> list[tuple[str, str]]:
    found = client.get(f"/documents/{document}/annotations").json()
    return [(annotation["type"], annotation["value"]) for annotation in found]


def test_type_201_is_refused_by_every_route_and_known_types_are_accepted(start: Start) -> None:
    client = start()
    first, second = upload(client), upload(client, f"{TEXT} Twice.")
    known = {"annotations": [mark("Acme", f"type {number:03}") for number in range(200)]}
    assert client.post(f"/documents/{first}/feedback", json=known).status_code == 202
    annotations = f"/documents/{second}/annotations"
    stored = client.post(annotations, json=mark("Bell", "type 000")).json()
    label = {"type": "labels", "value": {"start": 0, "end": 4, "labels": ["new"]}}
    refusals = [
        client.post(annotations, json=mark("Acme", "new")),
        client.put(f"/annotations/{stored['id']}", json=mark("Bell", "new")),
        client.post(f"{annotations}/ingest", json=[{"annotations": [{"result": [label]}]}]),
        client.post(f"/documents/{second}/feedback", json={"annotations": [mark("Acme", "new"), mark("Acme Ltd")]}),
    ]
    assert [refused.status_code for refused in refusals] == [422] * 4
    assert "There are 200 entity types, 200 at most, and this adds 1, such as 'new'" in refusals[0].json()["detail"]
    assert "CONTRACT_FEEDBACK_MAX_TYPES" in refusals[0].json()["detail"]
    assert list_stored(client, second) == [("type 000", "Bell")]
    assert client.post(annotations, json=mark("Acme", "new", status="draft")).status_code == 201
    assert client.put(f"/annotations/{stored['id']}", json=mark("Bell", "type 199")).status_code == 200
    feedback = client.post(f"/documents/{second}/feedback", json={"annotations": [mark("Acme", "type 001")]})
    assert feedback.status_code == 202


def test_feedback_with_300_types_is_refused_and_nothing_is_stored(start: Start) -> None:
    client = start()
    document = upload(client)
    many = {"annotations": [mark("Acme", f"type {number}") for number in range(300)]}
    refused = client.post(f"/documents/{document}/feedback", json=many)
    assert refused.status_code == 422
    assert "There are 0 entity types, 200 at most, and this adds 300" in refused.json()["detail"]
    assert list_stored(client, document) == []
    assert client.post("/training-runs").status_code == 422  # there is nothing to train on


def test_types_above_a_lowered_limit_remain_usable(start: Start) -> None:
    client = start()
    document = upload(client)
    both = {"annotations": [mark("Acme", "party"), mark("Bell", "payee")]}
    assert client.post(f"/documents/{document}/feedback", json=both).status_code == 202
    lowered = start(max_types=1)
    assert lowered.post(f"/documents/{document}/annotations", json=mark("Acme Ltd", "payee")).status_code == 201
    assert lowered.post(f"/documents/{document}/feedback", json=both).status_code == 202
    assert lowered.post(f"/documents/{document}/annotations", json=mark("Acme", "third")).status_code == 422


def test_feedback_above_the_limit_of_waiting_jobs_is_refused(start: Start) -> None:
    client = start(max_waiting_jobs=1)
    first, second = upload(client), upload(client, f"{TEXT} Twice.")
    assert client.post(f"/documents/{first}/feedback", json={"annotations": [mark("Bell")]}).status_code == 202
    refused = client.post(f"/documents/{second}/feedback", json={"annotations": [mark("Bell")]})
    assert refused.status_code == 429
    assert client.get(f"/documents/{second}/annotations").json() == []
    assert client.post("/training-runs").status_code == 429


@pytest.mark.slow
def test_more_requests_at_once_than_threads_and_connections_are_all_answered(start: Start) -> None:
    client = start()
    entities = f"/documents/{upload(client)}/entities"
    with ThreadPoolExecutor(128) as pool:
        answers = list(pool.map(lambda _: client.get(entities), range(512)))
    assert {answer.status_code for answer in answers} == {200}
