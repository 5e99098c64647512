"""Keys, scopes and limits: what is checked before a request's body is read, and what each scope permits."""

import asyncio
import json
from collections.abc import Coroutine, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event
from starlette.types import ASGIApp, Message

from api import routes
from api.authentication import GuardedRoute
from registry.database import build_engine, migrate_database, open_session
from registry.keys import Scope, add_key, revoke_key
from registry.settings import Settings
from tests.api.conftest import Start
from tests.api.test_limits import TEXT, mark, upload

PART = 1_000_000
MARKED = mark("Acme Ltd")
WRONG = {"type": "party", "value": "Acme", "start": 14, "end": 18}
FORM = b"multipart/form-data; boundary=x"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def keys(settings: Settings) -> dict[str, str]:
    """A key for each scope alone."""
    migrate_database(settings)
    with open_session(settings) as session:
        return {scope.value: add_key(session, f"only {scope}", [scope]) for scope in Scope}


def with_key(client: TestClient, key: str) -> TestClient:
    return TestClient(client.app, headers={"Authorization": f"Bearer {key}"})


def send_endlessly(app: ASGIApp, path: str, headers: dict[str, bytes]) -> tuple[int, int]:
    """Send a body without end, in parts of a million bytes; return the status and how many parts were read."""
    read, status = 0, 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' if read == 1 else b""
        return {"type": "http.request", "body": start + b" " * PART, "more_body": read < 500}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value) for name, value in headers.items()], "client": ("192.0.2.1", 1),
        "server": ("testserver", 80), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    run: Coroutine[Any, Any, None] = app(scope, receive, send)  # type: ignore[assignment]
    asyncio.run(run)
    return status, read


@pytest.mark.parametrize("authorization", [b"", b"Bearer cf_0_0", b"Basic eDp5"])
@pytest.mark.parametrize(("path", "content_type"), [("/documents", FORM), ("/training-runs", b"application/json")])
def test_body_without_a_valid_key_is_not_read(
    start: Start, path: str, content_type: bytes, authorization: bytes
) -> None:
    headers = {"content-type": content_type, "authorization": authorization}
    assert send_endlessly(start().app, path, headers) == (401, 0)


@pytest.mark.parametrize(
    ("path", "content_type", "limit"),
    [("/documents", FORM, "max_upload_bytes"), ("/training-runs", b"application/json", "max_json_bytes")],
)
def test_body_is_read_up_to_its_limit(start: Start, path: str, content_type: bytes, limit: str) -> None:
    client = start(**{limit: 5 * PART})
    headers = {"content-type": content_type, "authorization": client.headers["Authorization"].encode()}
    status, read = send_endlessly(client.app, path, headers)
    assert status == 413
    assert read <= 6
    assert send_endlessly(client.app, path, headers | {"content-length": b"6000000"}) == (413, 0)


def test_key_that_is_revoked_while_its_body_comes_in_changes_nothing(
    start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    monkeypatch.setattr("api.authentication._KEY_CHECK_SECONDS", 0.0)
    document = upload(client)
    key = client.headers["Authorization"].split("_")[1]

    def send_slowly() -> Iterator[bytes]:
        body = json.dumps({"annotations": [MARKED]}).encode()
        yield body[:-1]
        with open_session(settings) as session:
            revoke_key(session, key)
        yield body[-1:]

    headers = {"Content-Type": "application/json"}
    answer = client.post(f"/documents/{document}/feedback", content=send_slowly(), headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (401, "The API key was revoked")
    assert client.get("/documents").status_code == 401


def test_key_is_accepted_while_its_use_cannot_be_recorded(start: Start, settings: Settings) -> None:
    client, engine = start(), build_engine(settings)
    app: Any = client.app
    event.listen(app.state.services.engine, "checkout", lambda opened, *_: opened.execute("PRAGMA busy_timeout = 0"))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE apikey SET last_used_at = NULL")  # and nobody else can write until the end
        assert client.get("/documents").status_code == 200
    engine.dispose()


def test_body_that_is_too_large_is_refused_with_the_limit(start: Start) -> None:
    answer = start(max_json_bytes=10).post("/training-runs", json={"document_ids": ["a"]})
    assert (answer.status_code, answer.json()) == (413, {"detail": "The body is larger than 10 bytes"})


def test_every_route_that_needs_a_key_is_guarded() -> None:
    names = {each.name for each in iter_modules(routes.__path__)} - {"health"}
    for module in (import_module(f"{routes.__name__}.{name}") for name in sorted(names)):
        assert all(isinstance(route, GuardedRoute) for route in module.router.routes)


def test_requests_without_a_valid_key_are_limited_by_address(start: Start) -> None:
    client = start(refusals_per_minute=2)
    stranger = TestClient(client.app)
    assert [stranger.get("/documents").status_code for _ in range(4)] == [401, 401, 429, 429]
    assert client.get("/documents").status_code == 200
    elsewhere = TestClient(client.app, client=("192.0.2.7", 1))
    assert elsewhere.get("/documents").status_code == 401


def test_feedback_with_annotations_needs_annotate(start: Start, keys: dict[str, str]) -> None:
    client = start()
    document = upload(client)
    client.post(f"/documents/{document}/annotations", json=MARKED)
    trainer = with_key(client, keys["train"])
    refused = trainer.post(f"/documents/{document}/feedback", json={"annotations": []})
    assert (refused.status_code, refused.json()["detail"]) == (403, "The key 'only train' lacks the scope 'annotate'")
    assert len(client.get(f"/documents/{document}/annotations").json()) == 1
    assert trainer.post(f"/documents/{document}/feedback").status_code == 202


def test_text_of_a_document_is_in_no_error_without_read(start: Start, keys: dict[str, str]) -> None:
    client = start()
    path = f"/documents/{upload(client)}/annotations"
    assert client.post(path, json=WRONG).json()["detail"].endswith("14 to 18, which is 'Bell'")
    refused = with_key(client, keys["annotate"]).post(path, json=WRONG)
    assert refused.status_code == 422
    assert refused.json()["detail"] == "The value 'Acme' is not the text at 14 to 18"


def test_body_without_the_scope_is_not_read(start: Start, keys: dict[str, str]) -> None:
    headers = {"content-type": FORM, "authorization": f"Bearer {keys['read']}".encode()}
    assert send_endlessly(start().app, "/documents", headers) == (403, 0)


def test_import_that_leaves_values_out_shows_no_text_without_read(start: Start, keys: dict[str, str]) -> None:
    client = start()
    path = f"/documents/{upload(client)}/annotations/ingest"
    label = {"type": "labels", "value": {"start": 0, "end": len(TEXT), "labels": ["party"]}}
    export = [{"annotations": [{"result": [label]}]}]
    assert with_key(client, keys["annotate"]).post(path, json=export).status_code == 403
    assert client.post(path, json=export).json()[0]["value"] == TEXT


def test_note_of_another_reviewer_is_not_shown_without_read(start: Start, keys: dict[str, str]) -> None:
    client = start()
    path = f"/documents/{upload(client)}/feedback"
    first = client.post(path, json={"annotations": [MARKED], "note": "mine"}).json()
    assert (first["note"], client.post(path).json()["note"]) == ("mine", "mine")
    again = with_key(client, keys["train"]).post(path).json()
    assert (again["job_id"], again["note"]) == (first["job_id"], None)


def test_documentation_lists_each_scope_and_what_it_permits(start: Start, keys: dict[str, str]) -> None:
    client = start()
    document = client.get("/openapi.json").json()
    assert all(
        f"`{scope}`" in document["components"]["securitySchemes"]["HTTPBearer"]["description"] for scope in Scope
    )
    clients = {scope: with_key(client, key) for scope, key in keys.items()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path in {"/health", "/ready"}:
                assert "security" not in operation
                continue
            (required,) = (set(each["HTTPBearer"]) for each in operation["security"])
            statuses = {scope: each.request(method, path).status_code for scope, each in clients.items()}
            refused = {scope for scope, status in statuses.items() if status == 403}
            assert refused == {scope for scope in statuses if scope != "admin" and required != {scope}}, path


def test_idempotency_keys_of_two_callers_do_not_meet(start: Start, settings: Settings) -> None:
    client = start()
    first, second = upload(client), upload(client, f"{TEXT} Twice.")
    with open_session(settings) as session:
        ana_b, ana = (add_key(session, name, list(Scope)) for name in ("ana b", "ana"))
    feedback = {"annotations": [MARKED]}
    for document, sent, own in ((first, ana_b, "c"), (second, ana, "b c")):
        answer = with_key(client, sent).post(
            f"/documents/{document}/feedback", json=feedback, headers={"Idempotency-Key": own}
        )
        assert answer.status_code == 202
        assert answer.json()["document_ids"] == [document]


def test_deleted_document_leaves_neither_name_nor_hash_nor_note(start: Start) -> None:
    client = start()
    document = client.post("/documents", files={"file": ("secret-merger.txt", TEXT.encode())}).json()
    feedback = {"annotations": [MARKED], "note": "secret note"}
    job = client.post(f"/documents/{document['id']}/feedback", json=feedback).json()["job_id"]
    assert client.delete(f"/documents/{document['id']}").status_code == 204
    left = client.get("/audit").text + client.get("/jobs").text + client.get(f"/jobs/{job}").text
    assert document["id"] in left
    for secret in ("secret", document["sha256"], "Acme"):
        assert secret not in left
