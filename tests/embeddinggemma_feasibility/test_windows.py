import numpy as np
import pytest

from embeddinggemma_feasibility.annotation_data import Span
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.lexical import hash_features, split_sentences, split_words
from embeddinggemma_feasibility.windows import encode_document, split_windows, tag_words, words_between


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 160, 161, 1000])
def test_windows_cover_every_piece_and_keep_each_once(count: int) -> None:
    windows = split_windows(count, 100, 40)
    kept = [piece for window in windows for piece in range(window.keep_start, window.keep_end)]
    assert kept == list(range(count))
    assert all(window.start <= window.keep_start <= window.keep_end <= window.end <= count for window in windows)
    assert all(window.end - window.start <= 100 for window in windows)


def test_inner_window_keeps_half_the_overlap_as_context_on_both_sides() -> None:
    for window in split_windows(1000, 100, 40)[1:-1]:
        assert window.keep_start - window.start == window.end - window.keep_end == 20


def test_words_are_runs_of_letters_runs_of_digits_or_single_marks() -> None:
    text = "R$ 1.250,00 até 3º§A1_b"
    assert [text[start:end] for start, end in split_words(text)] == [
        "R", "$", "1", ".", "250", ",", "00", "até", "3", "º", "§", "A", "1", "_", "b",
    ]  # fmt: skip


def test_every_word_starts_in_its_piece(tiny_encoder: Encoder) -> None:
    text = "Entre  Árvore S.A.,\n\nadiante Cliente, e Bell plc"
    document = encode_document(text, tiny_encoder.tokenizer, 1000)
    offsets = tiny_encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for (start, _), piece in zip(document.words, document.piece_of_word, strict=True):
        assert offsets[piece][0] <= start < offsets[piece][1]
    assert words_between(document, 0, len(document.pieces)) == slice(0, len(document.words))


def test_features_differ_by_case_digits_neighbours_and_line_breaks() -> None:
    def features(text: str, word: int) -> set[int]:
        return set(hash_features(text, split_words(text), 2**20)[word].tolist())

    assert features("a Bell b", 1) != features("a bell b", 1)
    assert features("a 12 b", 1) != features("a 123 b", 1)
    assert features("the Bell rings", 1) != features("old Bell rings", 1)
    assert features("the Bell rings", 1) != features("the\nBell rings", 1)
    assert features("the Bell rings", 1) == features("the  Bell  rings", 1)


def test_sentence_ends_at_a_blank_line_a_semicolon_or_a_stop_before_a_capital() -> None:
    text = "Cláusula 1.2 Foro\n\nO preço de R$ 1.250,00; e a multa. Árvore S.A. paga"
    sentences = split_sentences(text, split_words(text))
    first_words = split_words(text)[np.diff(sentences, prepend=-1) > 0]
    assert [text[start:end] for start, end in first_words] == ["Cláusula", "O", "e", "Árvore"]


def test_of_overlapping_spans_of_one_type_the_longer_is_kept_and_other_types_are_not_affected(
    tiny_encoder: Encoder,
) -> None:
    document = encode_document("Acme Holdings Ltd", tiny_encoder.tokenizer, 1000)
    spans = [Span(0, 4, "party"), Span(0, 17, "party"), Span(5, 13, "brand")]
    assert tag_words(document.words, spans, ("party", "brand")).tolist() == [[1, 0], [2, 1], [2, 0]]
