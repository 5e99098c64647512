"""From character offsets to boxes on pages, and back."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from registry.errors import InvalidInputError, WrongValueError

FloatArray = NDArray[np.float32]
_MAX_COMPARISONS = 1_000_000_000  # of a box with a character: about one second


class Location(BaseModel):
    """A highlight on one page, one box for each line.

    A box is left, top, right, bottom in points (1/72 inch) from the top left corner of the displayed page.
    """

    page: int = Field(ge=1, le=1_000_000, description="Number of the page, the first is 1")
    boxes: list[tuple[float, float, float, float]] = Field(min_length=1, max_length=1_000, fail_fast=True)


def locate(boxes: FloatArray, start: int, end: int) -> list[Location]:
    """Return the locations of the characters `start` to `end`, one for each page; `boxes` as in `ReadPdf`."""
    locations: list[Location] = []
    for page, *box in boxes[start:end].tolist():
        left, top, right, bottom = (round(side, 2) for side in box)
        if page == 0 or right <= left:
            continue
        if not locations or locations[-1].page != page:
            locations.append(Location(page=int(page), boxes=[(left, top, right, bottom)]))
            continue
        lines = locations[-1].boxes
        line_left, line_top, line_right, line_bottom = lines[-1]
        if top < line_bottom and bottom > line_top and left >= line_left:
            lines[-1] = (line_left, min(top, line_top), max(right, line_right), max(bottom, line_bottom))
        else:
            lines.append((left, top, right, bottom))
    return locations


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
