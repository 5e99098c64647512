"""Words, sentences, and the lexical features of words.

Lexical features are what encoders discard: case, shape, digits, neighbouring words, line breaks, place in the document.
"""

import re
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_SENTENCE_END = re.compile(r"\n\s*\n\s*|;\s+|\.\s+(?=[^\W\d_a-zà-ÿ])")
_NEIGHBOURS = (-2, -1, 1, 2)
_PLACES = (20, 60, 200, 600, 2000)

_ODD = np.uint64(0x9E3779B97F4A7C15)

IntArray = NDArray[np.int64]
HashArray = NDArray[np.uint64]


def split_words(text: str) -> IntArray:
    """Return the offsets of the words: runs of letters, runs of digits, single marks.

    :returns: Start and end of each word.
        Shape: (words, 2)
    """
    return np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)


def split_sentences(text: str, words: IntArray) -> IntArray:
    """Return each word's sentence; a sentence ends at a blank line, a semicolon, or a full stop before a capital.

    :param words: Character offsets of the words.
        Shape: (words, 2)
    :returns: Index of each word's sentence, without gaps.
        Shape: (words,)
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    _, sentences = np.unique(np.searchsorted(ends, words[:, 0], side="right"), return_inverse=True)
    return sentences.astype(np.int64)


def hash_features(text: str, words: IntArray, buckets: int) -> IntArray:
    """Return each word's lexical features, hashed (Weinberger et al., 2009) into a table of fixed size.

    :param words: Character offsets of the words.
        Shape: (words, 2)
    :returns: Hash values, each from 0 to `buckets` - 1.
        Shape: (words, features)
    """
    if not len(words):
        return np.zeros((0, 1), dtype=np.int64)
    own = np.array([_word_features(text[start:end]) for start, end in words], dtype=np.uint64)
    lower, shape = own[:, 0], own[:, 1]
    place = _place(len(words))
    columns = [
        *own.T,
        *_neighbour_features(lower, shape),
        *_line_break_features(text, words, lower, shape),
        _mix(place, 21),
        _mix(place * _ODD + shape, 22),
    ]
    return (np.stack(columns, axis=1) >> np.uint64(20)).astype(np.int64) % buckets


def _neighbour_features(lower: HashArray, shape: HashArray) -> list[HashArray]:
    columns = []
    for distance in _NEIGHBOURS:
        columns += [_mix(_shifted(lower, distance), distance), _mix(_shifted(shape, distance), distance)]
    before, after = _shifted(lower, -1), _shifted(lower, 1)
    return [
        *columns,
        _mix(before * _ODD + lower, 11),
        _mix(lower * _ODD + after, 12),
        _mix(before * _ODD + after, 13),
        _mix(_shifted(shape, -1) * _ODD + shape * np.uint64(31) + _shifted(shape, 1), 14),
        _mix(_shifted(lower, -2) * _ODD + before, 15),
        _mix(after * _ODD + _shifted(lower, 2), 16),
    ]


def _line_break_features(text: str, words: IntArray, lower: HashArray, shape: HashArray) -> list[HashArray]:
    before, after = _line_breaks(text, words)
    return [
        _mix(before * _ODD + after, 31),
        _mix(before * _ODD + shape, 32),
        _mix(after * _ODD + shape, 33),
        _mix(before * _ODD + lower, 34),
    ]


def _mix(values: HashArray, salt: int) -> HashArray:
    mixed = (values + np.uint64(salt + 1000)) * _ODD
    return (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def _shifted(values: HashArray, distance: int) -> HashArray:
    """Return the value of the word `distance` words further on, for each word; 0 beyond the text."""
    shifted = np.zeros_like(values)
    if distance < 0:
        shifted[-distance:] = values[:distance]
    else:
        shifted[:-distance] = values[distance:]
    return shifted


def _line_breaks(text: str, words: IntArray) -> tuple[HashArray, HashArray]:
    """Return the kind of gap before and after each word: none, space, line break, several line breaks, end of text."""
    gaps = [text[end:start] for end, start in zip(words[:-1, 1], words[1:, 0], strict=True)]
    inner = [min(2, gap.count("\n")) + 1 if gap else 0 for gap in gaps]
    kinds = np.array([4, *inner, 4], dtype=np.uint64)
    return kinds[:-1], kinds[1:]


def _place(count: int) -> HashArray:
    """Return each word's distance from the start and the end of the text, in coarse steps."""
    index = np.arange(count)
    from_start = np.searchsorted(_PLACES, index)
    from_end = np.searchsorted(_PLACES, count - 1 - index)
    return (from_start * 10 + from_end).astype(np.uint64)


@lru_cache(maxsize=200_000)
def _word_features(word: str) -> tuple[int, ...]:
    lower = word.lower()
    shape = "".join("X" if c.isupper() else "x" if c.islower() else "9" if c.isdigit() else c for c in word)
    short_shape = re.sub(r"(.)\1+", r"\1", shape)
    parts = (
        f"l={lower}",
        f"s={short_shape}",
        f"w={word}",
        f"n={shape}" if len(word) < 6 else f"n={short_shape}+",
        f"p={lower[:3]}",
        f"e={lower[-3:]}",
        f"e2={lower[-2:]}",
    )
    return tuple(zlib.crc32(part.encode()) * 0x100000001 + 1 for part in parts)
