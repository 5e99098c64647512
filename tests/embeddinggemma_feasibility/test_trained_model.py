import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.calibration import Calibration, Measurement
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult, fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.halves import half_of
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.trained_model import MAX_MEASUREMENTS, TrainedModel
from embeddinggemma_feasibility.training_config import TrainingConfig


@pytest.fixture(scope="module")
def model(tuned: FineTuningResult) -> TrainedModel:
    return tuned.model


def swap_types(data: AnnotationData) -> AnnotationData:
    types = sorted({span.type for span in data.spans})
    following = dict(zip(types, [*types[1:], types[0]], strict=True))
    spans = tuple(dataclasses.replace(span, type=following[span.type]) for span in data.spans)
    return dataclasses.replace(data, spans=spans)


def test_tagger_that_measures_a_document_has_not_learned_from_it(
    model: TrainedModel, contracts: list[AnnotationData], tiny_encoder: Encoder
) -> None:
    *others, last = contracts
    swapped = fine_tune_model([*others, swap_types(last)], encoder=tiny_encoder).model
    assert swapped.rank_unseen(last, None) == model.rank_unseen(last, None) != []
    assert swapped.full.rank(last.text) != model.full.rank(last.text)
    other_half = next(data for data in others if half_of(data.text) != half_of(last.text))
    assert swapped.rank_unseen(other_half, None) != model.rank_unseen(other_half, None)


def test_later_feedback_on_a_document_does_not_reach_the_tagger_that_measures_it(
    model: TrainedModel, contracts: list[AnnotationData]
) -> None:
    later = fine_tune_model([swap_types(contracts[0])], model).model
    assert later.rank_unseen(contracts[0], None) == model.rank_unseen(contracts[0], None)
    assert later.full.rank(contracts[0].text) != model.full.rank(contracts[0].text)


def test_copies_with_other_white_space_and_case_are_in_the_same_half() -> None:
    texts = [generate_contract(seed).text for seed in range(20)]
    halves = [half_of(text) for text in texts]
    assert set(halves) == {0, 1}
    assert [half_of(f"  {text.upper()}\n") for text in texts] == halves
    assert [half_of(text.replace(" ", " \n ")) for text in texts] == halves


def test_no_tagger_is_blind_to_the_only_document_and_it_measures_nothing(
    contracts: list[AnnotationData], tiny_encoder: Encoder
) -> None:
    model = fine_tune_model(contracts[:1], encoder=tiny_encoder).model
    half = half_of(contracts[0].text)
    assert model.blind[half] is None
    assert model.blind[1 - half]
    assert model.rank_unseen(contracts[0], None) == []
    assert (model.measurements, model.served.calibration) == ({}, Calibration())


def test_loaded_model_is_the_saved_one(
    model: TrainedModel, contracts: list[AnnotationData], tmp_path: Path, tiny_encoder: Encoder
) -> None:
    model.save(tmp_path / "served", tmp_path / "training")
    loaded = TrainedModel.load(tmp_path / "served", tmp_path / "training")
    assert loaded.measurements == model.measurements != {}
    for data in contracts:
        assert loaded.served.extract(data.text) == model.served.extract(data.text) != []
        assert loaded.full.rank(data.text) == model.full.rank(data.text)
        assert loaded.rank_unseen(data, None) == model.rank_unseen(data, None) != []


def test_missing_blind_tagger_is_saved_as_missing(
    contracts: list[AnnotationData], tiny_encoder: Encoder, tmp_path: Path
) -> None:
    model = fine_tune_model(contracts[:1], encoder=tiny_encoder).model
    model.save(tmp_path / "served", tmp_path / "training")
    loaded = TrainedModel.load(tmp_path / "served", tmp_path / "training")
    assert [tagger is None for tagger in loaded.blind] == [tagger is None for tagger in model.blind]


def save_as_earlier_release(tagger: Tagger, folder: Path) -> None:
    """Write the files of a release in which O had scores, too, and confidences were posteriors."""
    tagger.save(folder)
    tensors = load_file(folder / "tagger.safetensors")
    for name in ("head", "bias", "lexical"):
        of_tags = tensors[name].reshape(*tensors[name].shape[:-1], len(tagger.types), 2)
        outside = torch.randn(*of_tags.shape[:-1], 1)
        tensors[name] = torch.cat([outside, of_tags + outside], -1).flatten(-2).contiguous()
    save_file(tensors, folder / "tagger.safetensors")
    description = json.loads((folder / "tagger.json").read_text())
    del description["calibration"], description["adapted_spans"], description["config"]["lora_share"]
    description |= {"common_types": [], "documents_learned": 8}
    description["config"] |= {"outside_penalty": 0.5, "least_confidence": 0.3, "adapter_steps": 64}
    (folder / "tagger.json").write_text(json.dumps(description))


def test_version_of_an_earlier_release_extracts_and_learns(
    model: TrainedModel, contracts: list[AnnotationData], tmp_path: Path
) -> None:
    save_as_earlier_release(model.full, tmp_path)
    loaded = TrainedModel.load(tmp_path, None)
    assert (loaded.blind, loaded.measurements) == ((None, None), {})
    for data in contracts:
        expected = [(entity.type, entity.start, entity.end) for entity in model.full.extract(data.text)]
        assert [(entity.type, entity.start, entity.end) for entity in loaded.served.extract(data.text)] == expected
    challenger = fine_tune_model(contracts[:1], loaded, contracts[1:], 7, contracts[1:]).model
    assert all(challenger.blind)
    assert set(challenger.measurements) == {data.document_id for data in contracts}


@pytest.mark.parametrize(("document_count", "share_of_full"), [(1, 0.98), (30, 0.75), (10**6, 0.5)])
def test_served_tagger_is_near_full_with_few_documents_and_half_of_it_with_many(
    tiny_encoder: Encoder, document_count: int, share_of_full: float
) -> None:
    full, blind, other = (Tagger(tiny_encoder, ["type"], TrainingConfig()) for _ in range(3))
    torch.nn.init.ones_(full.bias)
    torch.nn.init.constant_(blind.bias, 0.5)
    torch.nn.init.constant_(other.bias, -0.5)
    served = TrainedModel.combine(full, (blind, other), document_count, {}, [], None).served
    assert served.bias.tolist() == pytest.approx([share_of_full] * 2, abs=0.01)
    assert full.bias.tolist() == [1, 1]


def test_newest_measurements_are_kept_one_for_each_document(
    model: TrainedModel, contracts: list[AnnotationData]
) -> None:
    earlier = {str(number): Measurement(examples=[], gold_count=number) for number in range(MAX_MEASUREMENTS)}
    earlier[contracts[0].document_id] = Measurement(examples=[], gold_count=-1)
    combined = TrainedModel.combine(model.full, model.blind, 8, earlier, contracts[:2], None)
    assert list(combined.measurements)[-2:] == [data.document_id for data in contracts[:2]]
    assert combined.measurements[contracts[0].document_id] == model.measurements[contracts[0].document_id]
    assert len(combined.measurements) == MAX_MEASUREMENTS
    assert {"0", "1"}.isdisjoint(combined.measurements)


def test_tagger_blind_to_the_first_document_with_a_type_finds_none_of_that_type(
    model: TrainedModel, contracts: list[AnnotationData]
) -> None:
    data = contracts[2]
    start = data.text.index("Objeto")
    extended = dataclasses.replace(data, spans=(*data.spans, Span(start, start + len("Objeto"), "clause")))
    later = fine_tune_model([extended], model).model
    assert "clause" in {entity.type for entity in later.full.extract(data.text)}
    assert "clause" not in {example.type for example in later.measurements[data.document_id].examples}
