from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import fine_tune_model
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.representations import Representation, hash_text
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.trained_model import TrainedModel
from embeddinggemma_feasibility.training_config import TrainingConfig


@pytest.fixture(scope="module")
def model(contracts: list[AnnotationData], tiny_encoder: Encoder) -> TrainedModel:
    return fine_tune_model(contracts[:3], encoder=tiny_encoder).model


@pytest.fixture(scope="module")
def tagger(model: TrainedModel) -> Tagger:
    return model.served


def change_adapter(tagger: Tagger) -> None:
    with torch.no_grad():
        for matrix in tagger.add_adapter():
            matrix.add_(0.1)


def test_encoder_reads_a_text_once_and_the_entities_are_the_same(
    tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, text = DiskCache(tmp_path, 10**9), contracts[0].text
    assert tagger.extract(text, cache) == tagger.extract(text)
    monkeypatch.setattr(tagger, "encode_windows", lambda *_: pytest.fail("the encoder reads it again"))
    assert tagger.extract(text, cache)


def test_text_that_many_threads_need_at_once_is_encoded_once(
    tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, encode_windows = count(), tagger.encode_windows
    monkeypatch.setattr(tagger, "encode_windows", lambda *batch: (next(calls), encode_windows(*batch))[1])
    cache, text = DiskCache(tmp_path, 10**9), contracts[0].text
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: tagger.extract(text, cache), range(8)))
    assert next(calls) == 1
    assert all(entities == found[0] for entities in found)


def test_challenger_shares_its_champions_representations_until_it_has_an_adapter(
    model: TrainedModel, tagger: Tagger, contracts: list[AnnotationData]
) -> None:
    challenger = fine_tune_model(contracts[3:4], model).model.served
    assert challenger.encoding_sha256() == tagger.encoding_sha256()
    challenger.add_adapter()
    before = challenger.encoding_sha256()
    assert before != tagger.encoding_sha256()
    change_adapter(challenger)
    assert challenger.encoding_sha256() != before


@pytest.mark.parametrize("field", ["window_pieces", "window_overlap", "lexical_buckets", "adapted_share"])
def test_only_the_settings_of_the_encoding_choose_the_representation(tiny_encoder: Encoder, field: str) -> None:
    config = TrainingConfig()
    changed = config.model_copy(update={field: getattr(config, field) * 2})
    hashes = [Tagger(tiny_encoder, (), each).encoding_sha256() for each in (config, changed)]
    assert hashes[0] != hashes[1]
    assert Tagger(tiny_encoder, ("a",), config.model_copy(update={"l2": 9.0})).encoding_sha256() == hashes[0]


def test_adapter_changes_the_representation_and_is_copied_and_saved(
    tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path
) -> None:
    adapted, text = tagger.copy_with_types(()), contracts[0].text
    change_adapter(adapted)
    assert not torch.equal(adapted.represent(text).sentences, tagger.represent(text).sentences)
    adapted.save(tmp_path)
    for same in (adapted.copy_with_types(("new",)), Tagger.load(tmp_path)):
        assert same.encoding_sha256() == adapted.encoding_sha256()
        assert torch.equal(same.represent(text).sentences, adapted.represent(text).sentences)


def test_damaged_file_is_replaced(tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path) -> None:
    cache, text = DiskCache(tmp_path, 10**9), contracts[0].text
    expected = tagger.extract(text, cache)
    (file,) = tmp_path.iterdir()
    whole = load_file(file)
    for damage in ({"features": whole["features"] + 2**20}, {"sentence_of_word": whole["sentence_of_word"] - 1}):
        save_file(whole | damage, file)
        assert tagger.extract(text, cache) == expected
    file.write_bytes(b"half")
    assert tagger.extract(text, cache) == expected
    assert file.stat().st_size > 4


def test_file_that_cannot_be_written_or_read_raises_os_error(
    tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path
) -> None:
    representation = tagger.represent(contracts[0].text)
    with pytest.raises(OSError, match="Cannot write"):
        representation.save(tmp_path / "missing" / "file")
    (tmp_path / "damaged").write_bytes(b"half")
    for name in ("missing", "damaged"):
        with pytest.raises(OSError, match=name):
            Representation.load(tmp_path / name, 1)


def test_file_of_an_earlier_format_is_read_as_damaged(
    tagger: Tagger, contracts: list[AnnotationData], tmp_path: Path
) -> None:
    fields = vars(tagger.represent(contracts[0].text))
    save_file({name: tensor for name, tensor in fields.items() if name != "sentences"}, tmp_path / "earlier")
    with pytest.raises(OSError, match="Cannot read"):
        Representation.load(tmp_path / "earlier", 1)


def test_all_representations_of_a_text_and_no_others_start_with_its_hash(tiny_encoder: Encoder, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10**9)
    for config in (TrainingConfig(), TrainingConfig(window_pieces=100)):
        for text in ("Acme pays.", "Bell pays."):
            Tagger(tiny_encoder, ["party"], config).represent(text, cache)
    assert len(list(tmp_path.iterdir())) == 4
    cache.delete(hash_text("Acme pays."))
    assert [file.name[:32] for file in tmp_path.iterdir()] == [hash_text("Bell pays.")] * 2


def test_format_chooses_the_representation(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tagger.cache_key("a text")
    monkeypatch.setattr("embeddinggemma_feasibility.tagger.FORMAT", 2)
    assert tagger.cache_key("a text") != before
