"""Documents as encoder and tagger read them: words with features and tags, pieces, overlapping windows."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from embeddinggemma_feasibility.annotation_data import Span
from embeddinggemma_feasibility.lexical import hash_features, split_sentences, split_words
from embeddinggemma_feasibility.span_crf import BEGIN, INSIDE

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EncodedDocument:
    """A text, split into words and into the encoder's pieces.

    :param words: Character offsets of each word, the end exclusive.
        Shape: (words, 2)
    :param sentences: Index of each word's sentence.
        Shape: (words,)
    :param features: Each word's hashed lexical features.
        Shape: (words, features)
    :param pieces: Ids of the encoder's pieces.
        Shape: (pieces,)
    :param piece_of_word: Index of each word's first piece, never decreasing.
        Shape: (words,)
    """

    words: IntArray
    sentences: IntArray
    features: IntArray
    pieces: IntArray
    piece_of_word: IntArray


@dataclass(frozen=True)
class Window:
    """Pieces `start` to `end` of a document, the end exclusive.

    The encoder's outputs are kept for pieces `keep_start` to `keep_end`; the others are context.
    """

    start: int
    end: int
    keep_start: int
    keep_end: int


def encode_document(text: str, tokenizer: PreTrainedTokenizerBase, buckets: int) -> EncodedDocument:
    """Split a text into words and pieces, and align them; `buckets` as in `hash_features`."""
    words = split_words(text)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    pieces = np.array(encoding["input_ids"], dtype=np.int64)
    piece_ends = np.array(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 1]
    aligned = np.searchsorted(np.maximum.accumulate(piece_ends), words[:, 0], side="right")
    piece_of_word = np.minimum(aligned, max(len(pieces) - 1, 0))
    features = hash_features(text, words, buckets)
    return EncodedDocument(words, split_sentences(text, words), features, pieces, piece_of_word)


def split_windows(piece_count: int, size: int, overlap: int) -> list[Window]:
    """Return windows of `size` pieces that share `overlap` with each neighbour; each piece is kept from one window."""
    starts = list(range(0, max(piece_count - overlap, 1), size - overlap))
    windows = []
    for index, start in enumerate(starts):
        is_last = index == len(starts) - 1
        end = piece_count if is_last else start + size
        keep_start = 0 if index == 0 else start + overlap // 2
        windows.append(Window(start, end, keep_start, end if is_last else start + size - overlap + overlap // 2))
    return windows


def words_between(document: EncodedDocument, start: int, end: int) -> slice:
    """Return the words whose first piece is one of the pieces `start` to `end`, the end exclusive."""
    first, stop = np.searchsorted(document.piece_of_word, (start, end))
    return slice(int(first), int(stop))


def touched_words(words: IntArray, span: Span) -> slice:
    """Return the words that overlap a span.

    :param words: Character offsets of the words.
        Shape: (words, 2)
    """
    first = np.searchsorted(words[:, 1], span.start, side="right")
    stop = np.searchsorted(words[:, 0], span.end, side="left")
    return slice(int(first), int(stop))


def tag_words(words: IntArray, spans: Iterable[Span], types: tuple[str, ...]) -> IntArray:
    """Return the gold tags: OUTSIDE, BEGIN or INSIDE.

    A span tags each word that it overlaps. Of overlapping spans of one type only the first is kept, and of those that
    start together the longest, since a type's tags cannot overlap.

    :param words: Character offsets of the words.
        Shape: (words, 2)
    :returns: Tag of each word for each type.
        Shape: (words, types)
    """
    tags = np.zeros((len(words), len(types)), dtype=np.int64)
    column = {name: index for index, name in enumerate(types)}
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        of_type = tags[touched_words(words, span), column[span.type]]
        if len(of_type) and not of_type.any():
            of_type[0] = BEGIN
            of_type[1:] = INSIDE
    return tags
