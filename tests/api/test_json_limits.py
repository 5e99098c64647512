"""Limits on what a JSON body holds, so that checking it holds up no other request."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Start
from tests.api.test_limits import mark, upload

MARKED = mark("Acme")
MANY = 30_000
UNKNOWN = {str(number): 1 for number in range(MANY)}
LABELS = {"type": "labels", "value": {"start": 0, "end": 4, "labels": ["party"]}}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def export(*results: object) -> list[dict[str, Any]]:
    return [{"annotations": [{"result": list(results)}]}]


def label(*labels: object) -> list[dict[str, Any]]:
    return export({"type": "labels", "value": {"start": 0, "end": 4, "labels": list(labels)}})


def place(*boxes: object) -> dict[str, object]:
    return {"type": "party", "value": "Acme", "location": [{"page": 1, "boxes": list(boxes)}]}


def test_body_with_very_many_mistakes_is_refused_with_the_first(start: Start) -> None:
    client = start()
    address = f"/documents/{upload(client)}"
    bodies: list[tuple[str, object]] = [
        ("/training-runs", {"document_ids": [1] * MANY}),
        ("/training-runs", {"document_ids": [1] * 9_000}),
        ("/training-runs", UNKNOWN),
        (f"{address}/feedback", {"annotations": [{}] * MANY}),
        (f"{address}/feedback", {"annotations": [{}] * 9_000}),
        (f"{address}/feedback", {"annotations": [MARKED | UNKNOWN]}),
        (f"{address}/annotations", {**MARKED, "location": [1] * MANY}),
        (f"{address}/annotations", place(*[[0, 0, 1, "x"]] * MANY)),
        (f"{address}/annotations", place(*[[0, 0, 1, "x"]] * 900)),
        (f"{address}/annotations/ingest", [1] * MANY),
        (f"{address}/annotations/ingest", [{"annotations": [1] * MANY}]),
        (f"{address}/annotations/ingest", export(*[1] * MANY)),
        (f"{address}/annotations/ingest", export(*[1] * 9_000)),
        (f"{address}/annotations/ingest", label(*[1] * MANY)),
        (f"{address}/annotations/ingest", label(*[1] * 90)),
    ]
    for path, body in bodies:
        refused = client.post(path, json=body)
        assert (refused.status_code, len(refused.content) < 500) == (422, True), (path, refused.text[:500])


def test_answer_lists_20_problems_at_most_and_shortens_the_names_in_them(start: Start) -> None:
    refused = start().post("/training-runs", json={f"{number} {'x' * 1000}": 1 for number in range(50)})
    problems = refused.json()["detail"].split("; ")
    assert len(problems) == 21
    assert problems[0] == f"body.0 {'x' * 48}: Extra inputs are not permitted"
    assert problems[-1] == "and 30 more"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/training-runs", {"document_ids": ["x"] * 10_001}),
        ("feedback", {"annotations": [MARKED] * 10_001}),
        ("annotations", place(*[[0, 0, 1, 1]] * 1_001)),
        ("annotations", {**MARKED, "location": [{"page": 1, "boxes": [[0, 0, 1, 1]]}] * 101}),
        ("annotations/ingest", export(*[LABELS] * 10_001)),
        ("annotations/ingest", label(*["party"] * 101)),
    ],
)
def test_list_above_its_limit_is_refused_with_the_limit(start: Start, path: str, body: object) -> None:
    client = start()
    refused = client.post(path if path.startswith("/") else f"/documents/{upload(client)}/{path}", json=body)
    assert refused.status_code == 422
    assert "List should have at most" in refused.json()["detail"]


def test_json_with_more_values_than_allowed_is_refused(start: Start) -> None:
    client = start(max_json_values=100)
    accepted = client.post("/training-runs", json={"document_ids": ["none"] * 101})
    assert (accepted.status_code, accepted.json()["detail"]) == (404, "There is no document none")
    refused = client.post("/training-runs", json={"document_ids": ["none"] * 102})
    assert (refused.status_code, refused.json()) == (413, {"detail": "The JSON has more than 100 values"})
    assert client.post("/documents", files={"file": ("a.txt", b"a," * 200)}).status_code == 201


def test_annotation_with_more_than_10000_characters_is_refused_by_every_route(start: Start) -> None:
    client = start()
    address = f"/documents/{upload(client, 'x' * 10_001)}"
    longest, longer = ({"type": "clause", "value": "x" * n, "start": 0, "end": n} for n in (10_000, 10_001))
    stored = client.post(f"{address}/annotations", json=longest)
    assert stored.status_code == 201
    span: dict[str, object] = {"start": 0, "end": 10_001, "labels": ["clause"]}
    refusals = [
        client.post(f"{address}/annotations", json=longer),
        client.put(f"/annotations/{stored.json()['id']}", json=longer),
        client.post(f"{address}/feedback", json={"annotations": [longer]}),
        client.post(f"{address}/annotations/ingest", json=export({"type": "labels", "value": span})),
        client.post(f"{address}/annotations", json={**longer, "value": "x"}),
    ]
    for refused in refusals:
        assert (refused.status_code, "10000" in refused.json()["detail"]) == (422, True)


def test_import_builds_no_value_before_the_labels_are_counted(start: Start) -> None:
    client = start()
    address = f"/documents/{upload(client, 'x' * 10_000)}"
    span = {"type": "labels", "value": {"start": 1, "end": 10_000, "labels": ["clause"] * 100}}
    tracemalloc.start()
    try:
        refused = client.post(f"{address}/annotations/ingest", json=export(*[span] * 30))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (refused.status_code, "not 3000" in refused.json()["detail"]) == (422, True)
    assert peak_bytes < 10_000_000


def test_limits_of_lists_are_in_the_description(start: Start) -> None:
    document = start().get("/openapi.json").json()
    models = document["components"]["schemas"]
    routes = [route for path in document["paths"].values() for route in path.values()]
    assert all("413" in route["responses"] for route in routes if "requestBody" in route)

    def read_limit(model: str, field: str) -> int:
        described = models[model]["properties"][field]
        return int(next(each["maxItems"] for each in [described, *described.get("anyOf", ())] if "maxItems" in each))

    assert models["AnnotationCreate"]["properties"]["value"]["maxLength"] == 10_000
    assert read_limit("TrainingRunRequest", "document_ids") == 10_000
    assert read_limit("FeedbackRequest", "annotations") == 10_000
    assert read_limit("AnnotationCreate", "location") == 100
    assert read_limit("Location", "boxes") == 1_000
