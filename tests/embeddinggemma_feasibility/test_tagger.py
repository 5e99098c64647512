import json
import locale
from pathlib import Path

import pytest
import torch

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult, fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig


@pytest.fixture(scope="module")
def tagger(tuned: FineTuningResult) -> Tagger:
    return tuned.model.served


def test_loaded_tagger_extracts_what_the_saved_one_extracted(
    tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path
) -> None:
    tagger.save(tmp_path)
    loaded = Tagger.load(tmp_path)
    assert [loaded.extract(data.text) for data in contracts] == [tagger.extract(data.text) for data in contracts]


def test_tagger_with_a_type_outside_ascii_is_saved_and_loaded_where_the_locale_is_ascii(
    tagger: Tagger, tmp_path: Path
) -> None:
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        tagger.copy_with_types(["合同金额"]).save(tmp_path)
        assert Tagger.load(tmp_path).types == ("合同金额",)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def test_saved_files_are_safetensors_and_json_without_the_encoder(tagger: Tagger, tmp_path: Path) -> None:
    tagger.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tagger.json", "tagger.safetensors"}
    assert json.loads((tmp_path / "tagger.json").read_text())["encoder_sha256"] == tagger.encoder.sha256


def test_constants_are_buffers_and_are_saved(tagger: Tagger, tmp_path: Path) -> None:
    assert {name for name, _ in tagger.named_buffers(recurse=False)} == {"centre", "spread"}
    assert all(parameter.requires_grad for parameter in tagger.parameters(recurse=False))
    tagger.save(tmp_path)
    loaded = Tagger.load(tmp_path)
    assert torch.equal(loaded.centre, tagger.centre)
    assert torch.equal(loaded.spread, tagger.spread)


def test_encoder_that_the_tagger_was_not_trained_on_is_refused(tagger: Tagger, tmp_path: Path) -> None:
    tagger.save(tmp_path)
    with pytest.raises(ValueError, match="needs the encoder"):
        Tagger.load(tmp_path, "packaged")


def test_standardised_outputs_have_mean_0_and_variance_1(tagger: Tagger, contracts: list[AnnotationData]) -> None:
    representations = [tagger.represent(data.text) for data in contracts]
    tokens = torch.cat([representation.tokens for representation in representations]).float()
    centre, spread = tagger.centre[: tokens.shape[1]], tagger.spread[: tokens.shape[1]]
    standardised = (tokens - centre) / spread
    assert standardised.mean(dim=0).abs().max() < 0.05
    assert (standardised.std(dim=0) - 1).abs().max() < 0.1


def test_spread_of_a_single_word_is_not_near_zero(tiny_encoder: Encoder) -> None:
    tagger = Tagger(tiny_encoder, ["type"], TrainingConfig())
    tagger.standardise([tagger.represent("Lei")])
    assert tagger.spread.min() > 0.9


def test_entities_at_the_edges_of_windows_are_found(tagger: Tagger, contracts: list[AnnotationData]) -> None:
    data = contracts[1]
    alone = {(span.type, data.text[span.start : span.end]) for span in data.spans}
    for filler in range(0, 300, 60):
        text = "nada . " * filler + data.text + "nada . " * 300
        found = {(entity.type, entity.value) for entity in tagger.extract(text)}
        assert len(alone & found) >= len(alone) - 1, filler


def test_entity_longer_than_a_window_is_one_entity(tiny_encoder: Encoder) -> None:
    clause = "begin " + "lei portuguesa " * 300 + "end"
    text = f"Fim . {clause} . Fim"
    data = AnnotationData("long", text, (Span(6, 6 + len(clause), "clause"),))
    tagger = fine_tune_model([data], encoder=tiny_encoder).model.served
    assert [entity.value for entity in tagger.extract(text)] == [clause]


def test_text_without_words_has_no_entities(tagger: Tagger) -> None:
    assert tagger.extract(" \n ") == tagger.extract("\x01") == []
