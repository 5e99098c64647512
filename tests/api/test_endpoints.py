import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.installation import Stack
from demo.contract_generator import generate_contract
from registry.database import open_session
from registry.keys import Scope, add_key
from registry.settings import Settings

HOSTILE = Path(__file__).parents[3] / "shared" / "data" / "pdfs" / "hostile"
TEXT = "Contrato entre Acme, Lda. e Bell plc. 😀 Preço: 100 €."


@pytest.fixture(scope="module")
def http(stack: Stack) -> httpx.Client:
    return httpx.Client(base_url=stack.api_url, headers={"Authorization": f"Bearer {stack.api_key}"}, timeout=60)


def upload(http: httpx.Client, content: bytes, name: str = "contract.txt") -> dict[str, Any]:
    answer = http.post("/documents", files={"file": (name, content)})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def upload_text(http: httpx.Client, salt: str) -> str:
    return str(upload(http, f"{TEXT} {salt}".encode())["id"])


def marked(value: str, name: str = "party", **fields: object) -> dict[str, object]:
    start = TEXT.index(value)
    return {"type": name, "value": value, "start": start, "end": start + len(value), **fields}


def test_pdf_uploaded_twice_is_one_document_and_comes_back_as_uploaded(http: httpx.Client) -> None:
    contract = generate_contract(500)
    document = upload(http, contract.pdf, contract.filename)
    assert document["media_type"] == "application/pdf"
    assert upload(http, contract.pdf, "again.pdf")["id"] == document["id"]
    content = http.get(f"/documents/{document['id']}/content")
    assert content.content == contract.pdf
    assert content.headers["content-type"] == "application/pdf"
    read = http.get(f"/documents/{document['id']}").json()
    assert read | {"uncertain_values": None} == document


def test_list_is_paged_and_newest_first(http: httpx.Client) -> None:
    older, newer = upload_text(http, "page 1"), upload_text(http, "page 2")
    page = http.get("/documents", params={"limit": 2}).json()
    assert [item["id"] for item in page["items"]] == [newer, older]
    assert page["total"] >= 2
    assert http.get("/documents", params={"limit": 1, "offset": 1}).json()["items"][0]["id"] == older


def test_deleted_document_and_its_annotations_are_not_found(http: httpx.Client) -> None:
    document_id = upload_text(http, "delete")
    annotation = http.post(f"/documents/{document_id}/annotations", json=marked("Bell plc")).json()
    assert http.delete(f"/documents/{document_id}").status_code == 204
    assert http.get(f"/documents/{document_id}").status_code == 410
    assert http.put(f"/annotations/{annotation['id']}", json=marked("Bell plc")).status_code == 404


def test_stale_revision_is_neither_changed_nor_deleted_and_the_history_lists_each_change(
    http: httpx.Client, stack: Stack
) -> None:
    document_id = upload_text(http, "revisions")
    first = http.post(f"/documents/{document_id}/annotations", json=marked("Bell plc")).json()
    address, stale = f"/annotations/{first['id']}", {"If-Match": f'"{first["revision"]}"'}
    second = http.put(address, json=marked("Bell plc", notes="checked"), headers=stale)
    assert second.json()["revision"] == first["revision"] + 1
    refused = http.put(address, json=marked("Acme, Lda."), headers=stale)
    assert refused.status_code == 412
    assert "read it again" in refused.json()["detail"]
    assert http.delete(address, headers=stale).status_code == 412
    assert http.delete(address, headers={"If-Match": str(second.json()["revision"])}).status_code == 204
    history = http.get(f"/documents/{document_id}/history").json()
    assert [(entry["principal"], entry["action"]) for entry in history["items"]] == [
        ("local", "deleted"), ("local", "changed"), ("local", "created"),
    ]  # fmt: skip
    assert history["items"][0]["before"]["notes"] == "checked"


def test_audit_log_is_shown_to_administrators_only(http: httpx.Client, stack: Stack) -> None:
    document_id = upload_text(http, "audited")
    newest = http.get("/audit", params={"limit": 1}).json()["items"][0]
    assert (newest["action"], newest["entity"], newest["entity_id"]) == ("created", "document", document_id)
    settings = Settings(database_url=stack.environment["CONTRACT_FEEDBACK_DATABASE_URL"])
    with open_session(settings) as session:
        key = add_key(session, "not an administrator", [Scope.READ, Scope.ANNOTATE, Scope.TRAIN])
    assert httpx.get(f"{stack.api_url}/audit", headers={"Authorization": f"Bearer {key}"}).status_code == 403


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\xfe", 415, "neither a PDF nor plain text"),
        (b"PK\x03\x04\x00\x00", 415, "neither a PDF nor plain text"),
        (b"  \n ", 422, "empty"),
        (b"%PDF-1.7\n", 422, "broken"),
    ],
)
def test_upload_that_cannot_be_read_is_refused(http: httpx.Client, content: bytes, status: int, words: str) -> None:
    before = http.get("/documents").json()["total"]
    answer = http.post("/documents", files={"file": ("x", content)})
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert http.get("/documents").json()["total"] == before


@pytest.mark.parametrize(
    ("charset", "name", "kept"),
    [
        ("utf-8", b"a\0b", "ab"),
        ("unicode_escape", rb"a\ud800b", "a?b"),
        ("utf-8", b"a" * 1000, "a" * 255),
        ("utf-8", b"\0", "unnamed"),
    ],
)
def test_filename_that_no_database_stores_is_repaired(http: httpx.Client, charset: str, name: bytes, kept: str) -> None:
    disposition = b'Content-Disposition: form-data; name="file"; filename="' + name + b'"'
    answer = http.post(
        "/documents",
        content=b"\r\n".join([b"--x", disposition, b"", b"named " + name.replace(b"\0", b"0"), b"--x--", b""]),
        headers={"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"},
    )
    assert (answer.status_code, answer.json()["filename"]) == (201, kept)


@pytest.mark.skipif(not HOSTILE.exists(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("encrypted_aes256_password_segredo.pdf", "encrypted"),
        ("encrypted_user_password_openpassword.pdf", "encrypted"),
        ("header_only.pdf", "broken"),
        ("truncated_at_45_percent.pdf", "broken"),
        ("image_only_3_pages.pdf", "no text layer"),
    ],
)
def test_hostile_pdf_is_refused_with_what_is_wrong(http: httpx.Client, name: str, words: str) -> None:
    answer = http.post("/documents", files={"file": (name, (HOSTILE / name).read_bytes())})
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_annotation_is_created_changed_and_deleted(http: httpx.Client) -> None:
    document_id = upload_text(http, "annotate")
    created = http.post(f"/documents/{document_id}/annotations", json=marked("Acme, Lda.", notes="vendor"))
    assert created.status_code == 201
    assert created.json()["reviewer"] == "local"
    url = f"/annotations/{created.json()['id']}"
    assert http.put(url, json=marked("Acme", status="draft")).json()["value"] == "Acme"
    listed = http.get(f"/documents/{document_id}/annotations").json()
    assert [(item["value"], item["status"]) for item in listed] == [("Acme", "draft")]
    assert http.delete(url).status_code == 204
    assert http.get(f"/documents/{document_id}/annotations").json() == []


def test_annotation_errors_say_what_is_wrong_and_change_nothing(http: httpx.Client) -> None:
    document_id = upload_text(http, "errors")
    url = f"/documents/{document_id}/annotations"
    assert http.post(url, json=marked("Bell plc")).status_code == 201
    assert http.post(url, json=marked("Bell plc")).status_code == 409
    assert "is not the text at" in http.post(url, json={**marked("Acme"), "value": "Akme"}).json()["detail"]
    unplaced = http.post(url, json={"type": "party", "value": "Acme"})
    assert unplaced.status_code == 422
    assert unplaced.json()["detail"] == "body: Value error, Give start and end, or a location"
    assert http.post("/documents/none/annotations", json=marked("Acme")).status_code == 404
    assert len(http.get(url).json()) == 1


def test_location_of_a_pdf_annotation_becomes_offsets(http: httpx.Client) -> None:
    contract = generate_contract(501)
    document_id = upload(http, contract.pdf)["id"]
    text = http.get(f"/documents/{document_id}/text").text
    word = text.split()[0]
    by_offsets = {"type": "word", "value": word, "start": text.index(word), "end": text.index(word) + len(word)}
    everywhere = [{"page": 1, "boxes": [[0, 0, 700, 900]]}]
    answer = http.post(
        f"/documents/{document_id}/annotations", json={"type": "word", "value": word, "location": everywhere}
    )
    assert {name: answer.json()[name] for name in by_offsets} == by_offsets
    nowhere = [{"page": 9, "boxes": [[0, 0, 700, 900]]}]
    refused = http.post(
        f"/documents/{document_id}/annotations", json={**by_offsets, "start": None, "location": nowhere}
    )
    assert refused.status_code == 422
    assert "no text at the location" in refused.json()["detail"]


def test_nul_character_is_refused_in_every_stored_or_searched_field(http: httpx.Client) -> None:
    document_id = upload_text(http, "nul")
    answers = [
        http.get("/jobs/%00"),
        http.post(f"/documents/{document_id}/annotations", json=marked("Acme", "\0")),
        http.post(f"/documents/{document_id}/feedback", json={"annotations": [], "note": "\0"}),
        http.post("/training-runs", json={"document_ids": ["\0"]}),
    ]
    for answer in answers:
        assert answer.status_code == 422
        assert "Leave out the NUL character" in answer.json()["detail"]


def test_excessive_number_is_refused(http: httpx.Client) -> None:
    beyond = 10**400
    document_id = upload(http, generate_contract(502).pdf)["id"]
    somewhere = {"type": "word", "value": "a", "location": [{"page": beyond, "boxes": [[0, 0, 1, 1]]}]}
    assert http.get("/documents", params={"offset": beyond}).status_code == 422
    assert http.get(f"/models/{beyond}").status_code == 422
    assert http.post(f"/documents/{document_id}/annotations", json=somewhere).status_code == 422


def test_label_studio_export_replaces_the_annotations(http: httpx.Client) -> None:
    document_id = upload_text(http, "label studio")
    start = TEXT.index("100 €")
    value = {"start": start, "end": start + 5, "text": "100\\n€", "labels": ["price", "amount"]}
    old = {"result": [], "updated_at": "2025-01-01T00:00:00Z"}
    new = {
        "result": [{"type": "labels", "value": value}, {"type": "choices", "value": {"choices": ["x"]}}],
        "updated_at": "2026-01-01T00:00:00.5Z",
        "completed_by": {"email": "ana@example.org"},
    }
    url = f"/documents/{document_id}/annotations/ingest"
    answer = http.post(url, json=[{"id": 1, "annotations": [new, old], "data": {"text": TEXT}}])
    assert answer.status_code == 201, answer.text
    assert [(item["type"], item["value"], item["reviewer"]) for item in answer.json()] == [
        ("amount", "100 €", "ana@example.org"),
        ("price", "100 €", "ana@example.org"),
    ]
    assert http.post(url, json=[]).status_code == 422
    assert len(http.get(f"/documents/{document_id}/annotations").json()) == 2


@pytest.mark.parametrize(
    ("value", "email", "field"),
    [
        ({"start": -1000, "labels": ["price"]}, "ana@example.org", "start"),
        ({"start": 0, "labels": [""]}, "ana@example.org", "labels.0"),
        ({"start": 0, "labels": ["price" * 100]}, "ana@example.org", "labels.0"),
        ({"start": 0, "labels": ["price"]}, "ana" * 100, "email"),
        ({"start": 0, "labels": ["price"]}, 5, "email"),
    ],
)
def test_label_studio_export_beyond_what_an_annotation_holds_is_refused(
    http: httpx.Client, value: dict[str, object], email: object, field: str
) -> None:
    result = {"type": "labels", "value": {"end": 4, **value}}
    export = [{"annotations": [{"result": [result], "completed_by": {"email": email}}]}]
    answer = http.post(f"/documents/{upload_text(http, 'unfit export')}/annotations/ingest", json=export)
    assert answer.status_code == 422
    assert f"{field}: " in answer.json()["detail"]


def test_key_permits_only_its_scopes(stack: Stack, http: httpx.Client) -> None:
    settings = Settings(database_url=stack.environment["CONTRACT_FEEDBACK_DATABASE_URL"])
    with open_session(settings) as session:
        key = add_key(session, "annotator", [Scope.READ, Scope.ANNOTATE])
    document_id = upload_text(http, "scopes")
    limited = httpx.Client(base_url=stack.api_url, headers={"Authorization": f"Bearer {key}"})
    assert limited.get(f"/documents/{document_id}").status_code == 200
    assert limited.post(f"/documents/{document_id}/annotations", json=marked("Acme")).status_code == 201
    refused = limited.post(f"/documents/{document_id}/feedback")
    assert refused.status_code == 403
    assert "'train'" in refused.json()["detail"]
    assert limited.post("/training-runs").status_code == 403
    assert httpx.get(f"{stack.api_url}/documents").status_code == 401
    assert httpx.get(f"{stack.api_url}/health").json() == {"status": "ok"}


def test_feedback_without_anything_to_learn_is_refused(http: httpx.Client) -> None:
    document_id = upload_text(http, "nothing marked")
    before = http.get("/jobs").json()["total"]
    assert http.post(f"/documents/{document_id}/feedback").status_code == 422
    wrong = {"annotations": [marked("Acme"), {**marked("Bell plc"), "value": "Bull plc"}]}
    assert http.post(f"/documents/{document_id}/feedback", json=wrong).status_code == 422
    assert http.get(f"/documents/{document_id}/annotations").json() == []
    assert http.get("/jobs").json()["total"] == before


def test_unknown_job_model_and_document_are_not_found(http: httpx.Client) -> None:
    for path in ("/jobs/none", "/models/99", "/documents/none/entities"):
        assert http.get(path).status_code == 404, path
    assert http.post("/documents/none/feedback").status_code == 404
    assert http.post("/training-runs", json={"document_ids": ["none"]}).status_code == 404


def test_system_status_shows_that_every_part_is_up(http: httpx.Client) -> None:
    status = http.get("/system-status").json()
    assert status["ok"], status
    assert socket.gethostname() in status["worker"]["detail"]


def test_openapi_describes_every_endpoint(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert all(operation["description"] for path in paths.values() for operation in path.values())
