"""The ML backend for Label Studio, asked as a real one asks; with a real database and, where it predicts, a model."""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, select

from api.authentication import Caller
from api.label_studio import predict
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from intake.label_config import read_label_config
from intake.label_studio_requests import Prediction, TaskRequest
from registry.database import open_session
from registry.keys import Scope, add_key
from registry.lessons import take_lessons
from registry.models import ModelRegistry
from registry.settings import Settings
from registry.tables import JobDocument, LabelStudioAnnotation, Lesson
from tests.api.conftest import Start
from tests.label_studio import (
    CONFIG,
    RECORDED,
    TEXT,
    basic,
    build_annotation,
    build_deletion,
    build_project,
    build_task,
    build_webhook,
    load_recorded,
    mark,
)
from tests.registry.test_models import register

PARTIES = [mark("Acme Ltd", "party"), mark("Bell", "party")]
AMOUNTS = CONFIG.replace("party", "amount").replace("Party", "Amount")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def http(start: Start) -> TestClient:
    return start()


@pytest.fixture
def version(settings: Settings, contracts: list[AnnotationData], tiny_encoder: Encoder) -> str:
    """A champion that knows the contracts."""
    registry = ModelRegistry(settings)
    version = register(registry, fine_tune_model(contracts, encoder=tiny_encoder), contracts, "run-1")
    registry.promote(version)
    return version


def send(http: TestClient, webhook: dict[str, Any]) -> list[str]:
    answer = http.post("/label-studio/webhook", json=webhook)
    assert answer.status_code == 202, answer.text
    jobs: list[str] = answer.json()["jobs"]
    return jobs


def find_document(http: TestClient) -> str:
    [document] = http.get("/documents").json()["items"]
    return str(document["id"])


def list_annotations(http: TestClient) -> list[tuple[str, str]]:
    found = http.get(f"/documents/{find_document(http)}/annotations").json()
    return [(each["type"], each["value"]) for each in found]


def find_lesson(settings: Settings, job: str) -> Lesson:
    with open_session(settings) as session:
        taught = session.exec(select(JobDocument).where(JobDocument.job_id == job)).one()
        assert taught.lesson
        return taught.lesson


def test_backend_takes_a_key_as_bearer_and_as_the_password_of_basic(http: TestClient, settings: Settings) -> None:
    with open_session(settings) as session:
        key = add_key(session, "label-studio", [Scope.READ])
    stranger = TestClient(http.app)
    for path in ("/label-studio", "/label-studio/", "/label-studio/health"):
        assert stranger.get(path, headers=basic(key)).json()["status"] == "UP"
        assert stranger.get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert stranger.get(path).status_code == 401
        assert stranger.get(path, headers={b"Authorization": b"Basic \xe9"}).status_code == 401
    assert stranger.get("/documents", headers=basic(key)).status_code == 401
    assert stranger.post("/label-studio/webhook", json=build_deletion(1), headers=basic(key)).status_code == 403


def test_setup_names_the_champion_without_loading_it_and_forgets_the_token(
    start: Start, version: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    http: Any = start()
    body = {"project": "3.1", "schema": CONFIG, "hostname": "http://127.0.0.1", "access_token": "s3cret"}
    with caplog.at_level(logging.DEBUG):
        assert http.post("/label-studio/setup", json=body).json() == {"model_version": version}
        assert http.post("/label-studio/setup", json={**body, "schema": 5}).status_code == 422
    assert http.app.state.services.served.loaded is None
    assert http.get("/label-studio/versions").json() == {"versions": [version]}
    assert "s3cret" not in caplog.text
    assert not any(b"s3cret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_configuration_that_fetches_its_text_is_refused_with_the_reason(http: TestClient) -> None:
    url = CONFIG.replace('value="$text"', 'value="$text" valueType="url"')
    for path, body in (("setup", {"schema": url}), ("predict", {"tasks": [], "label_config": url})):
        answer = http.post(f"/label-studio/{path}", json=body)
        assert answer.status_code == 422
        assert "fetches nothing" in answer.json()["detail"]


def test_before_the_first_version_no_task_has_a_prediction_and_none_becomes_a_document(http: TestClient) -> None:
    assert http.post("/label-studio/setup", json={"schema": CONFIG}).json() == {"model_version": "untrained"}
    asked = {"tasks": [build_task(), build_task("x")], "label_config": CONFIG}
    assert http.post("/label-studio/predict", json=asked).json() == {"results": [[], []]}
    assert http.get("/documents").json()["total"] == 0


def test_each_task_has_one_prediction_in_order_with_the_labels_of_the_configuration_alone(
    start: Start, version: str, contracts: list[AnnotationData]
) -> None:
    http = start()
    config = CONFIG.replace('value="date"', 'value="Date" alias="effective_date"')
    tasks = [build_task("😀 " + data.text, number) for number, data in enumerate(contracts[:2])]
    tasks.insert(1, {"id": 9, "data": {"other": 1}})
    results = http.post("/label-studio/predict", json={"tasks": tasks, "label_config": config}).json()["results"]
    assert results[1] == []
    for task, prediction in zip(tasks[::2], results[::2], strict=True):
        regions = prediction["result"]
        assert len({region["id"] for region in regions}) == len(regions) > 0
        assert {(region["from_name"], region["to_name"], region["type"]) for region in regions} == {
            ("label", "text", "labels")
        }
        assert {label for region in regions for label in region["value"]["labels"]} <= {"party", "effective_date"}
        for region in regions:
            value = region["value"]
            assert value["text"] == task["data"]["text"][value["start"] : value["end"]]
        assert prediction["model_version"] == version
        assert prediction["score"] == pytest.approx(sum(region["score"] for region in regions) / len(regions))


def test_task_after_the_time_for_predictions_is_a_document_without_one(start: Start, version: str) -> None:
    http: Any = start()
    services = http.app.state.services
    caller = Caller("key", "ana", frozenset(Scope), time.monotonic())
    task = TaskRequest.model_validate(build_task())
    with Session(services.engine, expire_on_commit=False) as session:
        ask = partial(predict, session, services, caller, read_label_config(CONFIG), task, services.served.get())
        assert ask(time.monotonic() - 1) == []
        assert isinstance(ask(time.monotonic() + 60), Prediction)
    assert http.get("/documents").json()["total"] == 1


def test_prediction_is_the_extraction_of_the_document_that_the_task_names(
    start: Start, version: str, contracts: list[AnnotationData]
) -> None:
    http, text = start(), contracts[0].text
    document = http.post("/documents", files={"file": ("a.txt", text.encode())}).json()["id"]
    tasks = [build_task(text), build_task(text, document_id=document), build_task(text + " ", document_id=document)]
    results = http.post("/label-studio/predict", json={"tasks": tasks, "label_config": CONFIG}).json()["results"]
    entities = http.get(f"/documents/{document}/entities").json()["entities"]
    parties = [each for each in entities if each["type"] == "party"]
    for prediction in results[:2]:
        found = [(region["value"]["start"], region["score"]) for region in prediction["result"]]
        assert found == [(each["start"], each["confidence"]) for each in parties]
    assert http.get("/documents").json()["total"] == 2


def test_key_that_may_only_read_predicts_documents_but_adds_none(
    start: Start, version: str, settings: Settings, contracts: list[AnnotationData]
) -> None:
    http = start()
    with open_session(settings) as session:
        reader = add_key(session, "reader", [Scope.READ])
    http.post("/documents", files={"file": ("a.txt", contracts[0].text.encode())})
    statuses = [
        http.post(
            "/label-studio/predict", json={"tasks": [build_task(text)], "label_config": CONFIG}, headers=basic(reader)
        ).status_code
        for text in (contracts[0].text, "new")
    ]
    assert statuses == [200, 403]


def test_annotation_becomes_a_job_and_the_same_state_again_returns_it(http: TestClient, settings: Settings) -> None:
    webhook = build_webhook(build_annotation(*PARTIES))
    [job] = send(http, webhook)
    assert list_annotations(http) == [("party", "Acme Ltd"), ("party", "Bell")]
    assert send(http, webhook) == [job]
    assert find_lesson(settings, job).reviewed_types == ["date", "party"]
    assert http.get(f"/jobs/{job}").json()["triggered_by"] == "ana"
    [annotation, _] = http.get(f"/documents/{find_document(http)}/annotations").json()
    assert annotation["reviewer"] == "Label Studio user 1"


def test_value_is_the_text_with_its_line_breaks(http: TestClient) -> None:
    send(http, build_webhook(build_annotation(mark("Ltd pays\n  Bell", "party"))))
    assert list_annotations(http) == [("party", "Ltd pays\n  Bell")]


def test_of_updates_the_last_state_counts_in_whatever_order_they_come(http: TestClient) -> None:
    first, second, third = (build_annotation(*PARTIES[:count], second=count) for count in (1, 2, 0))
    third["updated_at"] = "2026-01-01T12:00:09Z"
    jobs = [send(http, build_webhook(each, action="ANNOTATION_UPDATED")) for each in (first, third, second, third)]
    assert (len(jobs[0]), len(jobs[1]), jobs[2], jobs[3]) == (1, 1, [], jobs[1])
    assert list_annotations(http) == []


def test_empty_result_says_that_there_is_nothing_to_mark_and_a_skipped_one_says_nothing(
    http: TestClient, settings: Settings
) -> None:
    assert send(http, build_webhook(build_annotation(*PARTIES, was_cancelled=True))) == []
    assert http.get("/jobs").json()["total"] == 0
    [job] = send(http, build_webhook(build_annotation(number=2)))
    assert find_lesson(settings, job) == Lesson(annotations=[], reviewed_types=["date", "party"], is_partial=True)


def test_two_projects_on_one_text_leave_each_other_alone(http: TestClient, settings: Settings) -> None:
    send(http, build_webhook(build_annotation(*PARTIES)))
    amount = build_annotation(mark("1 May", "amount"), number=2, second=1)
    other = build_project(AMOUNTS, number=4)
    [job] = send(http, build_webhook(amount, project=other))
    assert list_annotations(http) == [("party", "Acme Ltd"), ("party", "Bell"), ("amount", "1 May")]
    assert find_lesson(settings, job).reviewed_types == ["amount", "date", "party"]
    [again] = send(http, build_deletion(1))
    lesson = find_lesson(settings, again)
    assert [each.type for each in lesson.annotations] == ["amount"]
    assert lesson.reviewed_types == ["amount", "date"]  # the second project reviewed dates, too, and later


def test_deleted_annotation_is_not_reviewed_any_more_and_what_comes_late_does_not_bring_it_back(
    http: TestClient, settings: Settings
) -> None:
    webhook = build_webhook(build_annotation(*PARTIES))
    [job] = send(http, webhook)
    assert send(http, build_deletion(1, 77)) == []
    assert list_annotations(http) == []
    with open_session(settings) as session:
        assert session.get_one(JobDocument, (job, find_document(http))).withdrawn_by == "retracted"
    assert send(http, webhook) == []
    assert send(http, build_webhook(build_annotation(*PARTIES, second=9))) == []
    assert http.get("/jobs").json()["total"] == 1
    [new] = send(http, build_webhook(build_annotation(*PARTIES, number=2, second=9)))
    assert new != job


def test_deletion_of_an_overtaken_annotation_changes_nothing(http: TestClient) -> None:
    send(http, build_webhook(build_annotation(*PARTIES)))
    send(http, build_webhook(build_annotation(*PARTIES[:1], number=2, second=1)))
    assert send(http, build_deletion(1)) == []
    assert list_annotations(http) == [("party", "Acme Ltd")]


def test_feedback_over_the_api_outlives_the_deletion_of_an_earlier_annotation(http: TestClient) -> None:
    send(http, build_webhook(build_annotation(*PARTIES)))
    start = TEXT.index("Bell")
    bell = {"type": "party", "value": "Bell", "start": start, "end": start + 4}
    assert http.post(f"/documents/{find_document(http)}/feedback", json={"annotations": [bell]}).status_code == 202
    assert send(http, build_deletion(1)) == []
    assert list_annotations(http) == [("party", "Bell")]


def test_skipping_after_all_takes_back_what_was_said_until_it_is_said_again(http: TestClient) -> None:
    send(http, build_webhook(build_annotation(*PARTIES)))
    assert send(http, build_webhook(build_annotation(*PARTIES, was_cancelled=True, second=1))) == []
    assert list_annotations(http) == []
    assert len(send(http, build_webhook(build_annotation(*PARTIES, second=2)))) == 1


def test_many_annotations_at_once_are_one_job(http: TestClient) -> None:
    texts = [f"{TEXT} {number}" for number in range(3)]
    annotations = [build_annotation(*PARTIES, number=number) for number in range(3)]
    annotations[2]["result"] = [{**PARTIES[0], "value": {"start": 0, "end": 1000, "labels": ["party"]}}]
    tasks = [build_task(text, number) for number, text in enumerate(texts)]
    webhook = {"action": "ANNOTATIONS_CREATED", "annotation": annotations, "task": tasks, "project": build_project()}
    [job] = send(http, webhook)
    assert send(http, webhook) == [job]
    assert len(http.get(f"/jobs/{job}").json()["document_ids"]) == 2


def test_limits_hold_for_all_annotations_of_a_request_and_of_a_document_together(start: Start) -> None:
    http = start(max_types=2, max_annotations=2)
    annotations = [build_annotation(mark("Bell", name), number=number) for number, name in enumerate(("a", "b", "c"))]
    tasks = [build_task(f"{TEXT} {number}", number) for number in range(3)]
    webhook = {"action": "ANNOTATIONS_CREATED", "annotation": annotations, "task": tasks, "project": build_project()}
    refused = http.post("/label-studio/webhook", json=webhook)
    assert (refused.status_code, http.get("/jobs").json()["total"]) == (422, 0)
    assert "2 at most, and this adds 3" in refused.json()["detail"]
    send(http, build_webhook(build_annotation(*PARTIES, number=3)))
    amount = build_webhook(build_annotation(mark("1 May", "amount"), number=4), project=build_project(AMOUNTS, 4))
    refused = http.post("/label-studio/webhook", json=amount)
    assert (refused.status_code, "2 annotations at most, not 3" in refused.text) == (422, True)


def test_labels_that_nobody_looked_for_stay_unknown_in_a_later_training_run(
    http: TestClient, settings: Settings
) -> None:
    amount, project = build_annotation(mark("1 May", "amount"), number=2), build_project(AMOUNTS, 4)
    send(http, build_webhook(amount, build_task(TEXT + "!", 2), project=project))
    send(http, build_webhook(build_annotation(*PARTIES)))
    run = http.post("/training-runs", json={}).json()["job_id"]
    with open_session(settings) as session:
        take_lessons(session, [run], "run")
        rows = session.exec(select(JobDocument).where(JobDocument.job_id == run)).all()
        reviewed = sorted(row.lesson.reviewed_types for row in rows if row.lesson)
    assert reviewed == [["amount", "date"], ["date", "party"]]


def test_webhook_without_payload_and_one_that_does_not_fit_are_refused_with_the_reason(http: TestClient) -> None:
    beyond = {**PARTIES[0], "value": {"start": 0, "end": 1000, "labels": ["party"]}}
    for webhook, reason in (
        ({"action": "ANNOTATION_CREATED"}, "Send payload"),
        (build_webhook(build_annotation(beyond)), "outside the document's text"),
        (build_webhook(build_annotation(), project=build_project("<View/>")), "no <Labels>"),
        ({"action": "START_TRAINING", "project": build_project()}, "CONTRACT_FEEDBACK_LABEL_STUDIO_URL"),
    ):
        answer = http.post("/label-studio/webhook", json=webhook)
        assert answer.status_code == 422
        assert reason in answer.json()["detail"]
    assert send(http, {"action": "PROJECT_UPDATED", "project": build_project()}) == []


def test_text_that_begins_with_a_byte_order_mark_keeps_its_offsets(http: TestClient) -> None:
    text = "\ufeff" + TEXT
    send(http, build_webhook(build_annotation(mark("Bell", "party", text)), build_task(text)))
    assert list_annotations(http) == [("party", "Bell")]


def test_text_of_a_pdf_is_the_pdf_and_one_that_begins_as_a_pdf_does_is_text(http: TestClient) -> None:
    contract = generate_contract(0)
    pdf = http.post("/documents", files={"file": ("a.pdf", contract.pdf)}).json()["id"]
    text = http.get(f"/documents/{pdf}/text").text
    [job] = send(http, build_webhook(build_annotation(number=1), build_task(text)))
    assert http.get(f"/jobs/{job}").json()["document_ids"] == [pdf]
    text = "%PDF-1.7 " + TEXT
    [job] = send(http, build_webhook(build_annotation(mark("Bell", "party", text), number=2), build_task(text, 2)))
    [added] = http.get(f"/jobs/{job}").json()["document_ids"]
    assert http.get(f"/documents/{added}").json()["media_type"] == "text/plain"
    assert http.get(f"/documents/{added}/text").text == text


def test_deleted_document_takes_what_is_known_of_label_studio_with_it(http: TestClient, settings: Settings) -> None:
    send(http, build_webhook(build_annotation(*PARTIES)))
    assert http.delete(f"/documents/{find_document(http)}").status_code == 204
    with open_session(settings) as session:
        assert session.exec(select(LabelStudioAnnotation)).all() == []


def test_deleted_document_does_not_come_back_by_a_task_that_names_it(start: Start, version: str) -> None:
    http = start()
    deleted = http.post("/documents", files={"file": ("a.txt", TEXT.encode())}).json()["id"]
    http.delete(f"/documents/{deleted}")
    task, other = build_task(document_id=deleted), build_task(TEXT + "!", 2)
    asked = {"tasks": [task], "label_config": CONFIG}
    assert http.post("/label-studio/predict", json=asked).json() == {"results": [[]]}
    webhook = build_webhook(build_annotation(*PARTIES), task)
    assert http.post("/label-studio/webhook", json=webhook).status_code == 410
    assert http.get("/documents").json()["total"] == 0
    annotations = [build_annotation(*PARTIES, number=number) for number in (1, 2)]
    both = {**webhook, "action": "ANNOTATIONS_CREATED", "annotation": annotations, "task": [task, other]}
    [job] = send(http, both)
    assert http.get(f"/jobs/{job}").json()["document_ids"] == [find_document(http)]


@pytest.mark.skipif(not RECORDED.exists(), reason="../shared/label_studio is absent")
def test_recorded_requests_of_a_real_label_studio_are_understood(start: Start, version: str) -> None:
    http, answers = start(), []
    for request in load_recorded():
        path = request["path"].removeprefix("/api-root")
        answer = http.request(request["method"], f"/label-studio{path}", json=request["body"])
        answers.append((path, (request["body"] or {}).get("action"), answer.status_code, answer.json()))
        expected = 422 if answers[-1][1] == "START_TRAINING" else 202 if path == "/webhook" else 200
        assert answer.status_code == expected, answer.text
    jobs = {action: answer["jobs"] for path, action, _, answer in answers if path == "/webhook" and "jobs" in answer}
    assert [len(jobs[f"ANNOTATION{action}"]) for action in ("_CREATED", "_UPDATED", "S_DELETED", "S_CREATED")] == [
        1, 1, 0, 1,
    ]  # fmt: skip
    predicted = [answer["results"] for path, _, _, answer in answers if path == "/predict"]
    assert [len(results) for results in predicted] == [1, 2, 1]
    assert {each["model_version"] for results in predicted for each in results} == {version}
