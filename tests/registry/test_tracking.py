import json

import pytest
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric, Run

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from registry.lineage import Lineage, find_commit
from registry.models import ModelRegistry
from registry.settings import Settings
from tests.registry.test_models import database_url, lineage_of, register

__all__ = ["database_url"]  # a fixture


@pytest.fixture
def client(settings: Settings) -> MlflowClient:
    return MlflowClient(settings.mlflow_tracking_uri)


def find_champions(client: MlflowClient) -> Run:
    (run,) = client.search_runs(["1"], "attributes.run_name = 'champions'")
    return run


def read_curve(client: MlflowClient) -> dict[int, Metric]:
    history = client.get_metric_history(find_champions(client).info.run_id, "all types/value_f1")
    assert len(history) == len({point.step for point in history}), "A version is logged twice"
    return {point.step: point for point in history}


def test_run_shows_its_data_sets_by_counts_and_a_digest_without_their_ids(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], client: MlflowClient
) -> None:
    lineage = lineage_of(contracts, contracts[1:3])

    def save(flow_run_id: str, lineage: Lineage) -> list[DatasetInput]:
        inputs = client.get_run(registry.save_challenger(flow_run_id, tuned, lineage)).inputs
        assert inputs
        return sorted(inputs.dataset_inputs, key=lambda each: each.dataset.name, reverse=True)

    taught, replayed = save("run-1", lineage)
    assert (taught.tags[0].value, replayed.tags[0].value) == ("training", "replay")
    annotations = sum(len(data.spans) for data in contracts)
    assert json.loads(str(taught.dataset.profile)) == {"num_rows": 8, "num_elements": annotations}
    assert json.loads(str(replayed.dataset.profile)) == {"num_rows": 2}
    shown = json.dumps([each.to_dictionary() for each in (taught, replayed)])
    assert [data.document_id for data in contracts if data.document_id in shown] == []
    again, other = save("run-2", lineage)[0], save("run-3", lineage_of(contracts[1:], contracts[1:3]))[0]
    assert again.dataset.digest == taught.dataset.digest != other.dataset.digest


def test_run_shows_who_started_it_and_its_code(
    registry: ModelRegistry, tuned: FineTuningResult, client: MlflowClient
) -> None:
    tags = client.get_run(registry.save_challenger("run-1", tuned, lineage_of([]), "ana")).data.tags
    assert (tags["mlflow.user"], tags["mlflow.source.name"]) == ("ana", "contract-feedback")
    assert tags.get("mlflow.source.git.commit") == (find_commit() or "").removesuffix("-dirty") or None


def test_learning_curve_has_one_point_for_each_promoted_version(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], client: MlflowClient
) -> None:
    versions = [register(registry, tuned, contracts, f"run-{number}") for number in range(4)]
    registry.promote(versions[0])
    registry.promote(versions[2])
    registry.log_champions()  # the first time, all that were promoted before are there, too
    assert sorted(read_curve(client)) == [1, 3]
    scores = registry.get_version("3").scores.unseen
    assert read_curve(client)[3].value == scores.value.f1
    by_type = client.get_metric_history(find_champions(client).info.run_id, "each type/value_f1 party")
    assert [point.value for point in by_type] == [scores.value_by_type["party"].f1] * 2

    registry.promote(versions[0])  # back, and a version that was refused
    registry.promote(versions[1])
    for _ in range(2):
        registry.log_champions()
    assert sorted(read_curve(client)) == [1, 2, 3]


def test_description_of_an_earlier_release_is_replaced_and_that_of_a_person_is_kept(
    registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], client: MlflowClient
) -> None:
    name = "contract-entities"
    client.create_registered_model(name, description="Finds the entities of contracts")
    register(registry, tuned, contracts, "run-1")
    described = client.get_registered_model(name).description
    assert "`mlflow.pyfunc.load_model`" in described
    client.update_registered_model(name, "Ours")
    register(registry, tuned, contracts, "run-2")
    assert client.get_registered_model(name).description == "Ours"
