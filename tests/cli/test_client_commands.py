"""The commands that call an API, against a server in this process without Prefect and MLflow."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.schemas import EntitiesResponse, EntityPublic
from cli.command_line import app
from client.reviewer_client import ReviewerClient
from registry.outcome import Decision
from tests.feedback.jobs import outcome
from tests.running_api import RunningApi

TEXT = "Acme Ltd sells to Bell plc."


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def api(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> RunningApi:
    monkeypatch.setenv("CONTRACT_FEEDBACK_API_URL", api.url)
    monkeypatch.setenv("CONTRACT_FEEDBACK_API_KEY", api.key)
    return api


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    file = tmp_path / "contract.txt"
    file.write_text(TEXT)
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def write_tasks(folder: Path, *tasks: object) -> Path:
    file = folder / "tasks.jsonl"
    file.write_text("\n".join(json.dumps(task) for task in tasks))
    return file


def test_extraction_by_a_version_that_is_not_there_is_refused_with_the_reason(api: RunningApi, contract: Path) -> None:
    result = run("extract", contract, "--min-version", 12)
    assert result.exit_code == 2
    assert "No version is served: version 12 is not there yet" in result.output


def test_files_are_uploaded_and_the_reason_of_each_refused_one_is_given(
    api: RunningApi, contract: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text(" ")
    result = run("upload", tmp_path / "empty.txt", contract)
    document_id, name = result.stdout.split()
    assert (name, result.exit_code) == ("contract.txt", 1)
    assert "empty.txt is refused: The file is empty" in result.stderr
    assert ReviewerClient(api.url, api.key).read_text(document_id) == TEXT


def test_entities_are_printed_as_a_table_and_as_json(api: RunningApi, contract: Path) -> None:
    assert "No model yet" in run("extract", contract).stderr
    found = EntitiesResponse.model_validate_json(succeed("extract", contract, "--json"))
    assert found.entities == []


def test_contract_is_taught_with_what_extract_prints_after_its_correction(
    api: RunningApi, contract: Path, tmp_path: Path
) -> None:
    entity = EntityPublic(type="party", value="Acme Ltd", start=0, end=8, confidence=0.4, location=[])
    corrected = EntitiesResponse(document_id="x", model_version="1", entities=[entity]).model_dump_json()
    annotations = tmp_path / "annotations.json"
    for content in (corrected, json.dumps([entity.model_dump(include={"type", "value", "start", "end"})])):
        annotations.write_text(content)
        job_id = succeed("teach", contract, "--annotations", annotations).strip()
    client = ReviewerClient(api.url, api.key)
    (document_id,) = client.read_job(job_id).document_ids
    assert [each.value for each in client.list_annotations(document_id)] == ["Acme Ltd"]
    for content, reason in (("{}", "no list of annotations"), ("[", "not JSON"), ('[{"type": "x"}]', "0.value: Field")):
        annotations.write_text(content)
        refused = run("teach", document_id, "--annotations", annotations)
        assert (refused.exit_code, reason in refused.output) == (2, True), refused.output
    assert succeed("teach", document_id).strip() == job_id


def test_watch_prints_what_becomes_of_a_job_and_fails_unless_it_is_promoted(api: RunningApi) -> None:
    promoted, refused = api.add_job(), api.add_job()
    api.answer(promoted)
    api.answer(refused, outcome(Decision.NOT_PROMOTED))
    assert succeed("watch", promoted).startswith("completed 100%  because")
    assert run("watch", refused).exit_code == 1
    assert "There is no job x" in run("watch", "x").output


def test_file_is_imported_and_learned_in_one_job_and_again_adds_nothing(api: RunningApi, tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 4, "label": "party"}]
    tasks = [{"text": f"Acme {number}", "spans": spans, "relations": [1]} for number in range(60)]
    file = write_tasks(tmp_path, *tasks, {"text": "Nothing", "spans": []}, {"text": "a", "spans": spans})
    result = run("import", file, "--format", "prodigy")
    assert result.exit_code == 1
    assert "62 documents with 60 annotations: 61 added, 1 refused" in result.stderr
    assert "Ignored, since only spans are read: 60 relations" in result.stderr
    assert "Without annotations, and not learned: 1" in result.stderr
    assert "Document 62 is refused: party from 0 to 4 does not fit the text" in result.stderr
    client = ReviewerClient(api.url, api.key)
    assert len(client.read_job(result.stdout.strip()).document_ids) == 60
    again = run("import", write_tasks(tmp_path, *tasks), "--format", "prodigy")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "60 unchanged" in again.stderr


def test_import_that_stores_only_is_learned_by_the_next(api: RunningApi, tmp_path: Path) -> None:
    file = write_tasks(tmp_path, {"text": "Acme", "spans": [{"start": 0, "end": 4, "label": "party"}]})
    assert succeed("import", file, "--format", "prodigy", "--no-train") == ""
    assert succeed("import", file, "--format", "prodigy").strip()
    (tmp_path / "tasks.json").write_text("{")
    assert "The file is not JSON" in run("import", tmp_path / "tasks.json", "--format", "cuad").output


def test_export_is_written_whole_or_not_at_all(api: RunningApi, tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 4, "label": "party"}, {"start": 0, "end": 2, "label": "x", "status": "draft"}]
    succeed("import", write_tasks(tmp_path, {"text": "Acme", "spans": spans}), "--format", "prodigy")
    output = tmp_path / "out.conll"
    result = run("export", "--format", "conll", "--output", output)
    assert "1 annotations of another status are left out" in result.stderr
    assert "conll holds no reviewers and no notes" in result.stderr
    assert "Acme - _ B-party" in output.read_text()
    every = succeed("export", "--format", "prodigy", "--status", "approved", "--status", "draft")
    assert json.loads(every)["spans"][0]["status"] == "draft"
    refused = run("export", "--format", "conll", "--status", "draft", "--output", tmp_path / "draft.conll")
    assert (refused.exit_code, "does not hold the status" in refused.output) == (2, True)
    assert not list(tmp_path.glob("draft*"))


def test_command_without_a_key_or_an_api_says_what_to_do(
    contract: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Give an API key" in run("upload", contract).output
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local/api-key").write_text("cf_a_b")
    assert "does not answer" in run("upload", contract, "--api-url", "http://127.0.0.1:9").output
    assert "does not answer" in run("upload", contract, "--api-url", "nowhere").output
