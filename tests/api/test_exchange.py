"""Import and export over HTTP, with Prefect and MLflow unreachable."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from demo.alignment import carry_spans
from demo.contract_generator import generate_contract
from feedback.claiming import answer_jobs
from intake.formats.names import FORMATS, FormatName
from registry.database import open_session
from registry.outcome import Decision
from registry.settings import Settings
from registry.tables import Job
from tests.api.conftest import Start
from tests.feedback.jobs import outcome

ACME: dict[str, Any] = {
    "text": "Acme Ltd sells.",
    "spans": [{"start": 0, "end": 8, "label": "party", "notes": "seller"}],
}
BELL = {"text": "Bell plc buys.", "spans": [{"start": 0, "end": 8, "label": "party", "status": "draft"}]}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def write(*tasks: object) -> str:
    return "\n".join(json.dumps(task) for task in tasks)


def send(client: TestClient, content: str | bytes, name: str = "prodigy", **params: Any) -> dict[str, Any]:
    answer = client.post("/import", params={"format": name, **params}, content=content)
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def list_states(report: dict[str, Any]) -> list[str]:
    return [document["state"] for document in report["documents"]]


def export(client: TestClient, name: str = "prodigy", **params: Any) -> str:
    answer = client.get("/export", params={"format": name, **params})
    assert answer.status_code == 200, answer.text
    return answer.text


def read_annotations(client: TestClient, document_id: str) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = client.get(f"/documents/{document_id}/annotations").json()
    return annotations


def test_file_is_stored_and_again_adds_nothing(start: Start) -> None:
    client = start()
    first = send(client, write(ACME, BELL))
    assert list_states(first) == ["added", "added"]
    acme = first["documents"][0]
    assert first["to_teach"] == [acme["document_id"]], "A draft teaches nothing"
    (stored,) = read_annotations(client, acme["document_id"])
    assert (stored["value"], stored["notes"], stored["reviewer"]) == ("Acme Ltd", "seller", "ana")
    again = send(client, write(ACME, BELL))
    assert list_states(again) == ["unchanged", "unchanged"]
    assert again["to_teach"] == first["to_teach"]
    assert client.get("/documents").json()["total"] == 2
    assert read_annotations(client, acme["document_id"]) == [stored]


def test_documents_that_a_job_was_given_are_not_to_be_taught_again_unless_it_failed(
    start: Start, settings: Settings
) -> None:
    client = start()
    to_teach = send(client, write(ACME))["to_teach"]
    job = client.post("/training-runs", json={"document_ids": to_teach}).json()["job_id"]
    assert send(client, write(ACME))["to_teach"] == []
    with open_session(settings) as session:
        answer_jobs(session, [job], outcome(Decision.FAILED))
    assert send(client, write(ACME))["to_teach"] == to_teach
    job = client.post(f"/documents/{to_teach[0]}/feedback").json()["job_id"]
    assert send(client, write(ACME))["to_teach"] == []
    with open_session(settings) as session:
        answer_jobs(session, [job], outcome(Decision.FAILED))
    assert send(client, write(ACME))["to_teach"] == to_teach
    with open_session(settings) as session:
        session.get_one(Job, job).outcome = outcome(Decision.NOT_PROMOTED)
    assert send(client, write(ACME))["to_teach"] == [], "A person decides about what was refused"
    assert send(client, write({**ACME, "spans": []}), replace=True)["to_teach"] == []
    assert list_states(send(client, write(ACME))) == ["added"]


def test_what_a_reviewer_changed_since_is_kept_unless_it_is_to_be_replaced(start: Start) -> None:
    client = start()
    document_id = send(client, write(ACME))["documents"][0]["document_id"]
    changed = {**ACME, "spans": [{"start": 0, "end": 4, "label": "party"}]}
    kept = send(client, write(changed))
    assert list_states(kept) == ["kept"]
    assert "`replace`" in kept["documents"][0]["reason"]
    assert [each["value"] for each in read_annotations(client, document_id)] == ["Acme Ltd"]
    assert list_states(send(client, write(changed), replace=True)) == ["replaced"]
    assert [each["value"] for each in read_annotations(client, document_id)] == ["Acme"]


def test_document_that_cannot_be_stored_is_refused_alone_with_the_reason(start: Start) -> None:
    client = start(max_annotations=2, max_characters=1_000, max_types=3)
    many = [{"start": 0, "end": end, "label": "x"} for end in (1, 2, 3)]
    refused = [
        ({**ACME, "spans": [{"start": 0, "end": 99, "label": "party"}]}, "does not fit the text"),
        ({"text": "abcd", "spans": many}, "2 annotations at most"),
        ({"text": "a" * 1_001}, "more than 1000 characters"),
        ({"text": " "}, "empty"),
        ({"text": "abcd", "spans": [{"start": 0, "end": end, "label": "xy"[end - 1]} for end in (1, 2)]}, None),
        ({"text": "ab", "spans": [{"start": 0, "end": end, "label": "vw"[end - 1]} for end in (1, 2)]}, "entity types"),
        (1, "object"),
    ]
    report = send(client, write(*(task for task, _ in refused), ACME))
    for document, (task, reason) in zip(report["documents"], refused, strict=False):
        assert document["state"] == ("refused" if reason else "added"), (task, document)
        assert (reason or "") in (document["reason"] or ""), (task, document)
    assert report["documents"][-1]["state"] == "added"
    assert client.get("/documents").json()["total"] == 2, "Nothing is stored of what is refused"


def test_file_that_cannot_be_read_is_refused(start: Start) -> None:
    client = start(max_json_bytes=1_000)
    for name, content, status, detail in (
        ("cuad", b"[]", 422, "list `data`"),
        ("label-studio", b"{", 422, "not JSON"),
        ("prodigy", b"\xff", 422, "not UTF-8 at byte 0"),
        ("prodigy", b"a" * 1_001, 413, "larger than 1000 bytes"),
        ("word", b"", 422, "format"),
        ("conll", b"a O\n-DOCSTART-\n" * 60, None, ""),
    ):
        answer = client.post("/import", params={"format": name}, content=content)
        assert answer.status_code == (status or 200), answer.text
        assert detail in answer.text


def test_file_of_too_many_documents_is_refused_before_any_is_stored(start: Start) -> None:
    client = start()
    refused = client.post("/import", params={"format": "conll"}, content="-DOCSTART-\n\na O\n" * 1_001)
    assert (refused.status_code, "more than 1000 documents" in refused.text) == (422, True)
    assert client.get("/documents").json()["total"] == 0


@pytest.mark.parametrize("name", list(FormatName))
def test_export_is_imported_elsewhere_with_every_span(name: FormatName, start: Start, settings: Settings) -> None:
    client = start()
    spans = {}
    for seed in range(2):
        contract = generate_contract(seed)
        document = client.post("/documents", files={"file": (contract.filename, contract.pdf)}).json()["id"]
        text = client.get(f"/documents/{document}/text").text
        spans[text] = [(each.type, each.start, each.end) for each in carry_spans(contract.text, contract.spans, text)]
        body = [{"type": kind, "value": text[a:b], "start": a, "end": b} for kind, a, b in spans[text]]
        assert client.post(f"/documents/{document}/feedback", json={"annotations": body}).status_code == 202
    file = export(client, name)
    assert list_states(send(client, file, name)) == ["unchanged"] * 2, "The documents are PDFs, known by their ids"
    database_url = SecretStr(f"{settings.database_url.get_secret_value()}-2")
    anonymous = [replace(FORMATS[name].read(record), document_id=None) for record in FORMATS[name].split(file)]
    without_ids = FORMATS[name].join(map(FORMATS[name].write, anonymous))
    assert list_states(send(client, without_ids, name)) == ["unchanged"] * 2, "They are known by their texts, too"
    elsewhere = start(database_url=database_url, document_store_url=f"{settings.document_store_url}-2")
    report = send(elsewhere, file, name)
    assert list_states(report) == ["added"] * 2
    found = {}
    for each in report["documents"]:
        marked = read_annotations(elsewhere, each["document_id"])
        text = elsewhere.get(f"/documents/{each['document_id']}/text").text
        found[text] = sorted((mark["type"], mark["start"], mark["end"]) for mark in marked)
    assert found == {text: sorted(marked) for text, marked in spans.items()}
    assert [each["filename"] for each in report["documents"]] == [generate_contract(seed).filename for seed in range(2)]


def test_export_has_the_approved_annotations_of_reviewed_documents_and_tells_how_many_it_leaves_out(
    start: Start,
) -> None:
    client = start()
    draft = {"start": 0, "end": 4, "label": "party", "status": "draft"}
    send(client, write({**ACME, "spans": [*ACME["spans"], draft]}, BELL, {"text": "Only read."}))
    reviewed = client.post("/documents", files={"file": ("a.txt", b"Nothing in it.")}).json()["id"]
    client.post(f"/documents/{reviewed}/feedback", json={"annotations": []})
    answer = client.get("/export", params={"format": "prodigy"})
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [(row["text"], len(row["spans"])) for row in rows] == [(ACME["text"], 1), ("Nothing in it.", 0)]
    assert answer.headers["X-Left-Out"] == "2"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="contracts.jsonl"'
    both = [json.loads(line) for line in export(client, status=["approved", "draft"]).splitlines()]
    statuses = [[span.get("status") for span in row["spans"]] for row in both]
    assert statuses == [["draft", None], ["draft"], []]
    refused = client.get("/export", params={"format": "conll", "status": "draft"})
    assert (refused.status_code, "does not hold the status" in refused.text) == (422, True)


def test_export_of_nothing_is_a_file_without_documents(start: Start) -> None:
    client = start()
    assert [list(FORMATS[name].split(export(client, name))) for name in FormatName] == [[]] * len(FormatName)


def test_text_with_a_byte_order_mark_keeps_its_offsets(start: Start) -> None:
    client = start()
    text = "\ufeffAcme Ltd"
    report = send(client, write({"text": text, "spans": [{"start": 1, "end": 9, "label": "party"}]}))
    (annotation,) = read_annotations(client, report["documents"][0]["document_id"])
    assert annotation["value"] == "Acme Ltd"
    assert json.loads(export(client))["text"] == text


def test_document_deleted_before_the_import_is_stored_anew(start: Start) -> None:
    client = start()
    document_id = send(client, write(ACME))["documents"][0]["document_id"]
    file = export(client)
    client.delete(f"/documents/{document_id}")
    (document,) = send(client, file)["documents"]
    assert (document["state"], document["document_id"] != document_id) == ("added", True)


def test_text_that_begins_as_a_pdf_does_is_text(start: Start) -> None:
    client = start()
    text = "%PDF-1.7 is a version of PDF. Acme Ltd writes it."
    span = {"start": 30, "end": 38, "label": "party"}
    report = send(client, write({"text": text, "spans": [span]}))
    document_id = report["documents"][0]["document_id"]
    assert client.get(f"/documents/{document_id}/text").text == text
    assert [each["value"] for each in read_annotations(client, document_id)] == ["Acme Ltd"]
    assert list_states(send(client, write({"text": text, "spans": [span]}))) == ["unchanged"]


def test_text_is_found_though_its_file_began_with_a_byte_order_mark(start: Start) -> None:
    client = start()
    marked = client.post("/documents", files={"file": ("a.txt", ACME["text"].encode("utf-8-sig"))}).json()["id"]
    assert send(client, write(ACME))["documents"][0]["document_id"] == marked
