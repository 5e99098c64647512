"""From character offsets to boxes on pages, and back."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from embeddinggemma_feasibility.lexical import split_words
from registry.errors import InvalidInputError, WrongValueError

FloatArray = NDArray[np.float32]
_MAX_COMPARISONS = 1_000_000_000  # of a box with a character: about one second

Box = tuple[float, float, float, float]
_BOX = "Left, top, right, bottom in points from the top left corner of the displayed page"


class Location(BaseModel):
    """A highlight on one page, one box for each line.

    A box is left, top, right, bottom in points (1/72 inch) from the top left corner of the displayed page.
    """

    page: int = Field(ge=1, le=1_000_000, description="Number of the page, the first is 1")
    boxes: list[Box] = Field(min_length=1, max_length=1_000, fail_fast=True)


class Word(BaseModel):
    """Letters, digits, or a single mark on one line of a page; offsets as those of an annotation."""

    start: int
    end: int
    box: Box = Field(description=_BOX)


def locate(boxes: FloatArray, start: int, end: int) -> list[Location]:
    """Return the locations of the characters `start` to `end`, one for each page; `boxes` as in `ReadPdf`.

    They are not validated: there may be more boxes than a client may send.
    """
    shown = boxes[start:end]
    shown = shown[_are_shown(shown)]
    lines = _join(shown, _find_first_of_lines(shown))
    return [
        Location.model_construct(page=int(page), boxes=[(line[1], line[2], line[3], line[4]) for line in on_page])
        for page, on_page in groupby(lines, key=itemgetter(0))
    ]


def list_words(text: str, boxes: FloatArray, start: int, end: int) -> list[Word]:
    """Return a page's words as models read them; its text is from `start` to `end`, and blanks have no word.

    Characters without a box are left out.
    """
    word_of = np.full(end - start, -1)
    for number, (first, stop) in enumerate(split_words(text[start:end]).tolist()):
        word_of[first:stop] = number
    indices = np.flatnonzero(_are_shown(boxes[start:end]) & (word_of >= 0))
    shown, words = boxes[start:end][indices], word_of[indices]
    is_first = _find_first_of_lines(shown)
    is_first[1:] |= words[1:] != words[:-1]
    starts = start + indices[is_first]
    ends = start + indices[np.append(is_first[1:], True)[: len(indices)]] + 1
    return [
        Word.model_construct(start=first, end=stop, box=(left, top, right, bottom))
        for first, stop, (_, left, top, right, bottom) in zip(
            starts.tolist(), ends.tolist(), _join(shown, is_first), strict=True
        )
    ]


def _are_shown(boxes: FloatArray) -> NDArray[np.bool_]:
    return (boxes[:, 0] > 0) & (boxes[:, 3] > boxes[:, 1])


def _find_first_of_lines(boxes: FloatArray) -> NDArray[np.bool_]:
    """Tell of each character whether it is on another page than the one before, not beside it, or left of it."""
    page, left, top, right, bottom = boxes.T
    is_first = np.ones(len(boxes), dtype=bool)
    is_beside = (top[1:] < bottom[:-1]) & (bottom[1:] > top[:-1]) & (right[1:] > left[:-1])
    is_first[1:] = (page[1:] != page[:-1]) | ~is_beside
    return is_first


def _join(boxes: FloatArray, is_first: NDArray[np.bool_]) -> list[list[float]]:
    """Return the page and the common box of each run of characters, given which are the first of one."""
    if not len(boxes):
        return []
    first = np.flatnonzero(is_first)
    lowest, highest = np.minimum.reduceat(boxes, first), np.maximum.reduceat(boxes, first)
    joined: list[list[float]] = np.hstack([lowest[:, :3], highest[:, 3:]]).astype(float).round(2).tolist()
    return joined


class Places:
    """The centres of a PDF's characters by page, made once for a request, whose comparisons with boxes it limits."""

    def __init__(self, boxes: FloatArray) -> None:
        """Take boxes as in `ReadPdf`."""
        centres_x, centres_y = (boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 2] + boxes[:, 4]) / 2
        by_page = np.argsort(boxes[:, 0], kind="stable")
        pages, starts = np.unique(boxes[by_page, 0], return_index=True)
        of_pages = np.split(by_page, starts[1:])
        self._pages = {
            page: (indices, centres_x[indices], centres_y[indices])
            for page, indices in zip(pages.tolist(), of_pages, strict=True)
        }
        self._comparisons = 0

    def find_offsets(self, locations: list[Location], text: str, value: str) -> tuple[int, int]:
        """Return start and end of `value` among the characters whose centres are inside the boxes of the locations.

        Raises InvalidInputError if the value is not the text there, and for too many boxes on pages that are too full.
        """
        found = [inside for location in locations for inside in self._list_inside(location)]
        if not found:
            raise InvalidInputError("There is no text at the location")
        first, stop = min(first for first, _ in found), max(last for _, last in found) + 1
        start = text.find(value, first, stop)
        if start >= 0:
            return start, start + len(value)
        raise WrongValueError(f"The value {value!r} is not the text at its location", text[first:stop])

    def _list_inside(self, location: Location) -> Iterator[tuple[int, int]]:
        """Yield the first and the last of the characters inside each box that has any."""
        if location.page not in self._pages:
            return
        indices, centres_x, centres_y = self._pages[location.page]
        self._comparisons += len(indices) * len(location.boxes)
        if self._comparisons > _MAX_COMPARISONS:
            raise InvalidInputError(
                f"The boxes of all locations, times the characters of their pages, are more than {_MAX_COMPARISONS}: "
                "give start and end"
            )
        for left, top, right, bottom in location.boxes:
            within = (centres_x >= left) & (centres_x <= right) & (centres_y >= top) & (centres_y <= bottom)
            inside = np.flatnonzero(within)
            if len(inside):
                yield int(indices[inside[0]]), int(indices[inside[-1]])
