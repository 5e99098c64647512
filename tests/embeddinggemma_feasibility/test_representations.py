from pathlib import Path

import pytest
import torch

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.representations import Representation, RepresentationCache
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig


@pytest.fixture(scope="module")
def tagger(contracts: list[AnnotationData], tiny_encoder: Encoder) -> Tagger:
    config = TrainingConfig(first_adaptation=100)
    return fine_tune_model(contracts[:3], encoder=tiny_encoder, config=config).tagger


def move_adapter(tagger: Tagger) -> None:
    with torch.no_grad():
        for matrix in tagger.add_adapter():
            matrix.add_(0.1)


def test_text_is_read_by_the_encoder_once_and_found_alike(
    tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, text = RepresentationCache(tmp_path, 10**9), contracts[0].text
    assert tagger.extract(text, cache) == tagger.extract(text)
    monkeypatch.setattr(tagger, "encode_windows", lambda *_: pytest.fail("the encoder reads it again"))
    assert tagger.extract(text, cache)


def test_challenger_shares_what_its_champion_read_until_it_has_an_adapter(
    tagger: Tagger, contracts: list[AnnotationData]
) -> None:
    challenger = fine_tune_model(contracts[3:4], tagger).tagger
    assert challenger.adapter_sha256() == tagger.adapter_sha256()
    challenger.add_adapter()
    before = challenger.adapter_sha256()
    assert before != tagger.adapter_sha256()
    move_adapter(challenger)
    assert challenger.adapter_sha256() != before


def test_adapter_counts_and_is_copied_and_saved(
    tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path
) -> None:
    adapted, text = tagger.copy_with_types(()), contracts[0].text
    move_adapter(adapted)
    assert not torch.equal(adapted.represent(text).sentences, tagger.represent(text).sentences)
    adapted.save(tmp_path)
    for same in (adapted.copy_with_types(("new",)), Tagger.load(tmp_path)):
        assert same.adapter_sha256() == adapted.adapter_sha256()
        assert torch.equal(same.represent(text).sentences, adapted.represent(text).sentences)


def test_broken_file_is_replaced(tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path) -> None:
    cache, text = RepresentationCache(tmp_path, 10**9), contracts[0].text
    expected = tagger.extract(text, cache)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"half")
    assert tagger.extract(text, cache) == expected
    assert file.stat().st_size > 4


def test_longest_unused_goes_when_the_folder_is_full(tmp_path: Path) -> None:
    def make() -> Representation:
        nothing = torch.zeros(0, 2)
        return Representation(nothing, nothing, torch.zeros(1000, 1), nothing, nothing)

    cache = RepresentationCache(tmp_path, 10_000)
    for key in ("a", "b", "a", "c"):
        cache.get(key, make)
    made = []
    for key in ("a", "c", "b"):
        cache.get(key, lambda: made.append(key) or make())  # type: ignore[func-returns-value]  # noqa: B023
    assert made == ["b"]
