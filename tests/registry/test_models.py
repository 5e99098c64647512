import shutil
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.evaluation import evaluate
from embeddinggemma_feasibility.training_config import TrainingConfig
from registry.chart import Taught
from registry.errors import NoChampionError, NotFoundError, UnavailableError, UnusableModelError
from registry.lineage import Lineage, TaughtSpan, find_commit, get_code_version
from registry.models import ModelRegistry
from registry.outcome import Decision, ModelScores, Outcome
from registry.settings import Settings


@pytest.fixture
def database_url() -> str:
    return "sqlite://"


def lineage_of(training: Sequence[AnnotationData], replay: Sequence[AnnotationData] = ()) -> Lineage:
    jobs = [{data.document_id: f"job on {data.document_id}" for data in some} for some in (training, replay)]
    return Lineage(training=dict(jobs[0]), replay=dict(jobs[1]), earlier_count=len(replay), parent_version=None)


def register(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], flow_run_id: str
) -> str:
    run_id = registry.save_challenger(flow_run_id, tuned, lineage_of(contracts, contracts[1:3]))
    predictions = {data.document_id: tuned.model.served.extract(data.text) for data in contracts}
    scores = ModelScores(score=1.0, corrections_reproduced=0.75, unseen=evaluate(contracts, predictions))
    outcome = Outcome(decision=Decision.PROMOTED, reason="It is better.", flow_run_id=flow_run_id, challenger=scores)
    version = registry.register(run_id, outcome)
    registry.log_chart(run_id, outcome, Taught((), {}, {}))
    return version


def test_registered_version_loads_as_the_tagger_that_was_trained(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    text = contracts[0].text
    assert registry.load_tagger(version).extract(text) == tuned.model.served.extract(text)


def test_model_is_downloaded_only_if_its_cached_copy_is_missing_or_changed(
    registry: ModelRegistry,
    tuned: FineTuningResult,
    contracts: list[AnnotationData],
    settings: Settings,
    tmp_path: Path,
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    (cached,) = Path(settings.cache_folder).glob("models/*/tagger.safetensors")
    (stored,) = tmp_path.rglob("model/tagger/tagger.safetensors")
    hidden = stored.rename(tmp_path / "hidden")
    assert registry.load_tagger(version)
    cached.write_bytes(b"half")
    with pytest.raises(UnusableModelError):
        registry.load_tagger(version)
    hidden.rename(stored)
    for _ in range(2):
        assert registry.load_tagger(version)
        stored.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["tagger.safetensors", "tagger.json"])
def test_version_whose_files_were_changed_is_refused(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], tmp_path: Path, name: str
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    for file in tmp_path.rglob(name):
        file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(UnusableModelError, match="promote another version"):
        registry.load_tagger(version)
    with pytest.raises(UnusableModelError):
        registry.find_challenger("run-1", None)


@pytest.mark.parametrize("name", ["measurements.json", "full/tagger.safetensors", "blind_1/tagger.json"])
def test_version_whose_files_for_training_were_changed_is_served_but_not_trained_further(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], tmp_path: Path, name: str
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    for file in tmp_path.rglob(name):
        file.write_bytes(file.read_bytes() + b" ")
    assert registry.load_tagger(version)
    with pytest.raises(UnusableModelError):
        registry.load_model(version)


def test_loaded_model_is_the_one_that_was_saved(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    loaded, saved = registry.load_model(register(registry, tuned, contracts, "run-1")), tuned.model
    assert loaded.measurements == saved.measurements != {}
    for data in contracts[:3]:
        assert loaded.served.extract(data.text) == saved.served.extract(data.text)
        assert loaded.full.rank(data.text) == saved.full.rank(data.text)
        assert loaded.rank_unseen(data, None) == saved.rank_unseen(data, None) != []


def test_version_of_an_earlier_release_without_files_for_training_is_trained_further(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], settings: Settings
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    client = MlflowClient(settings.mlflow_tracking_uri)
    client.delete_model_version_tag(settings.model_name, version, "training_sha256")
    loaded, text = registry.load_model(version), contracts[0].text
    assert loaded.blind == (None, None)
    assert loaded.full.extract(text) == tuned.model.served.extract(text)


def test_version_shows_scores_and_what_it_was_made_from_without_offsets_or_text(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], tiny_encoder: Encoder
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    found, lineage = registry.get_version(version), registry.get_lineage(version)
    assert found.scores.unseen.document_count == len(contracts)
    assert found.reason == "It is better."
    assert not found.is_champion
    assert list(lineage.training.items()) == [(each.document_id, f"job on {each.document_id}") for each in contracts]
    assert list(lineage.replay) == [each.document_id for each in contracts[1:3]]
    assert (lineage.encoder_sha256, lineage.device) == (tiny_encoder.sha256, "cpu")
    assert lineage.config == TrainingConfig()
    assert lineage.code_version == get_code_version()


def test_code_version_is_the_release_with_the_commit_if_that_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = metadata.version("contract-feedback")

    def find() -> str:
        find_commit.cache_clear()
        return get_code_version()

    monkeypatch.setattr("registry.lineage._ROOT", tmp_path)
    assert find() == release
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert find() == release, "There is no commit"
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert find() == f"{release} ({commit})"
    (tmp_path / "a").touch()
    subprocess.run([*git, "add", "a"], check=True)
    assert find() == f"{release} ({commit}-dirty)"


def test_registering_twice_makes_one_version(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    run_id = registry.save_challenger("run-1", tuned, lineage_of([]))
    scores = ModelScores(score=1.0, unseen=evaluate([], {}))
    outcome = Outcome(decision=Decision.PROMOTED, reason="r", flow_run_id="run-1", challenger=scores)
    assert registry.register(run_id, outcome) == registry.register(run_id, outcome) == "1"
    assert len(registry.list_versions(10)) == 1


def test_promote_moves_the_champion_there_and_back(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    assert registry.find_champion() is None
    first, second = (register(registry, tuned, contracts, run) for run in ("run-1", "run-2"))
    for version in (first, second, first):
        registry.promote(version)
        assert registry.find_champion() == version
        assert [found.version for found in registry.list_versions(10) if found.is_champion] == [version]


def test_challenger_is_found_by_its_flow_run_once_trained(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    run_id = registry.save_challenger("run-1", tuned, lineage_of([]))
    found = registry.find_challenger("run-1", None)
    assert found
    assert found[0] == run_id
    assert registry.find_challenger("run-2", None) is None
    assert registry.find_challenger("run-1", "1") is None, "it may have learned what version 1 has unlearned"


def test_deleted_document_is_removed_from_the_lineage_of_all_runs_and_others_stay(
    registry: ModelRegistry,
    tuned: FineTuningResult,
    contracts: list[AnnotationData],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("registry.models._PAGE", 2)
    versions = [register(registry, tuned, contracts, f"run-{number}") for number in range(5)]
    client = MlflowClient(settings.mlflow_tracking_uri)
    [experiment] = {
        client.get_run(registry.get_version(version).mlflow_run_id).info.experiment_id for version in versions
    }
    client.create_run(experiment)  # it has no lineage yet
    before, deleted = registry.get_lineage("1"), contracts[1].document_id
    assert deleted in before.training
    assert deleted in before.replay
    assert registry.forget_documents({deleted}) == 5
    for version in versions:
        after = registry.get_lineage(version)
        assert before.training.keys() - after.training.keys() == {deleted}
        assert before.replay.keys() - after.replay.keys() == {deleted}
    assert registry.forget_documents({deleted}) == 0


def test_retired_champion_leaves_no_version_to_serve_and_any_can_be_promoted_again(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    for run in ("run-1", "run-2"):
        registry.promote(register(registry, tuned, contracts, run))
    assert [registry.retire_champion() for _ in range(2)] == [3, 3]
    assert registry.find_champion() is None
    registry.promote("2")
    assert registry.find_champion() == "2"


def test_run_shows_parameters_loss_curve_and_scores_by_type(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], settings: Settings
) -> None:
    run_id = registry.get_version(register(registry, tuned, contracts, "run-1")).mlflow_run_id
    client = MlflowClient(settings.mlflow_tracking_uri)
    run = client.get_run(run_id)
    assert run.info.run_name == "v1 · trained on 0 documents"
    scores = registry.get_version("1").scores.unseen
    assert run.data.metrics["unseen/value_f1"] == scores.value.f1 > 0
    assert run.data.metrics["unseen/value_f1 party"] == scores.value_by_type["party"].f1 > 0
    assert len(client.get_metric_history(run_id, "training/loss")) == len(tuned.losses)
    assert {artifact.path for artifact in client.list_artifacts(run_id)} >= {"lineage.json", "model", "report.png"}


def test_champion_that_lost_its_alias_is_missed_and_not_taken_for_none(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], settings: Settings
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    assert registry.find_champion() is None, "It was never promoted"
    registry.promote(version)
    MlflowClient(settings.mlflow_tracking_uri).delete_registered_model_alias(settings.model_name, "champion")
    with pytest.raises(NoChampionError, match="promote one"):
        registry.find_champion()
    assert [found.is_champion for found in registry.list_versions(10)] == [False]
    registry.promote(version)
    assert registry.find_champion() == version


@pytest.mark.parametrize("call", ["set_registered_model_alias", "set_model_version_tag"])
def test_first_promotion_is_not_taken_for_a_lost_alias_while_it_is_made(
    registry: ModelRegistry,
    tuned: FineTuningResult,
    contracts: list[AnnotationData],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    version, another = register(registry, tuned, contracts, "run-1"), ModelRegistry(settings)
    make, found = getattr(MlflowClient, call), []

    def look_before(*arguments: Any) -> None:
        found.append(another.find_champion())
        make(*arguments)

    monkeypatch.setattr(MlflowClient, call, look_before)
    registry.promote(version)
    assert found == [None if call == "set_registered_model_alias" else version]


def test_first_promotion_between_two_requests_of_a_reader_is_found(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, search = register(registry, tuned, contracts, "run-1"), MlflowClient.search_model_versions

    def promote_before(*arguments: Any) -> Any:
        registry.promote(version)
        return search(*arguments)

    monkeypatch.setattr(MlflowClient, "search_model_versions", promote_before)
    assert registry.find_champion() == version


def test_version_of_another_tool_is_neither_listed_nor_loaded(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], settings: Settings
) -> None:
    ours = register(registry, tuned, contracts, "run-1")
    client = MlflowClient(settings.mlflow_tracking_uri)
    foreign = client.create_model_version(settings.model_name, "file:/tmp/another-tool").version
    assert [found.version for found in registry.list_versions(10)] == [ours]
    with pytest.raises(NotFoundError, match="another tool"):
        registry.get_version(str(foreign))
    with pytest.raises(UnusableModelError):
        registry.load_tagger(str(foreign))


def test_version_whose_files_are_gone_is_unusable_and_still_listed(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], settings: Settings
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    run_id = registry.get_version(version).mlflow_run_id
    shutil.rmtree(settings.cache_folder)
    (artifacts,) = Path.cwd().rglob(f"{run_id}/artifacts")
    shutil.rmtree(artifacts)
    with pytest.raises(UnusableModelError, match=f"Version {version} cannot be loaded"):
        registry.load_tagger(version)
    assert registry.list_versions(10)[0].scores.unseen.document_count == len(contracts)


def test_version_of_another_encoder_is_unusable(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], settings: Settings
) -> None:
    version = register(registry, tuned, contracts, "run-1")
    another = ModelRegistry(settings.model_copy(update={"encoder": "packaged"}))
    with pytest.raises(UnusableModelError, match="encoder"):
        another.load_tagger(version)


def test_unknown_version_is_not_found(registry: ModelRegistry) -> None:
    with pytest.raises(NotFoundError):
        registry.promote("7")


def test_mlflow_that_does_not_answer_is_an_outage(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = ModelRegistry(settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"}))
    with pytest.raises(UnavailableError):
        away.find_champion()


def test_request_that_mlflow_rejects_is_a_bug_and_not_an_outage(settings: Settings) -> None:
    registry = ModelRegistry(settings.model_copy(update={"model_name": "a' name"}))
    with pytest.raises(MlflowException, match="filter"):
        registry.list_versions(10)


class GatewayTimeout(BaseHTTPRequestHandler):
    """A proxy in front of an MLflow that does not answer in time."""

    def do_GET(self) -> None:
        self.send_error(self.server.status)  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [504, 429, 401])
def test_proxy_that_answers_for_mlflow_is_an_outage(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with HTTPServer(("127.0.0.1", 0), GatewayTimeout) as server:
        server.status = status  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(UnavailableError):
            ModelRegistry(settings.model_copy(update={"mlflow_tracking_uri": address})).find_champion()
        server.shutdown()


def test_scores_and_lineage_of_earlier_versions_are_read() -> None:
    scores = {"score": 1.0, "corrections_kept": 0.25, "held_out": {}}
    assert ModelScores.model_validate(scores).corrections_reproduced == 0.25
    span = {"type": "party", "start": 0, "end": 4}
    lineage = Lineage.model_validate({"taught": {"a": [span]}, "replayed": {"b": []}})
    assert (lineage.training, lineage.replay) == ({"a": [TaughtSpan(**span)]}, {"b": []})
    assert (lineage.config, lineage.code_version) == (None, None)


def test_numbers_that_were_used_before_are_left_out(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData]
) -> None:
    run_id = registry.save_challenger("run", tuned, lineage_of(contracts))
    scores = ModelScores(score=1.0, unseen=evaluate([], {}))
    outcome = Outcome(decision=Decision.PROMOTED, reason="", flow_run_id="run", challenger=scores)
    assert [registry.register(run_id, outcome, above=12) for _ in range(2)] == ["13", "13"]
    assert [each.version for each in registry.list_versions(50)] == ["13"]
