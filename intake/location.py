"""From character offsets to boxes on pages, and back."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from registry.errors import InvalidInputError, WrongValueError

FloatArray = NDArray[np.float32]


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


def find_offsets(boxes: FloatArray, locations: list[Location], text: str, value: str) -> tuple[int, int]:
    """Return start and end of `value` among the characters whose centres are inside the boxes of the locations.

    Raises InvalidInputError if the value is not the text there.
    """
    centres_x, centres_y = (boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 2] + boxes[:, 4]) / 2
    inside = np.zeros(len(boxes), dtype=bool)
    for location in locations:
        for left, top, right, bottom in location.boxes:
            within = (centres_x >= left) & (centres_x <= right) & (centres_y >= top) & (centres_y <= bottom)
            inside |= within & (boxes[:, 0] == location.page)
    places = np.flatnonzero(inside)
    if len(places):
        first, stop = int(places[0]), int(places[-1]) + 1
        start = text.find(value, first, stop)
        if start >= 0:
            return start, start + len(value)
        raise WrongValueError(f"The value {value!r} is not the text at its location", text[first:stop])
    raise InvalidInputError("There is no text at the location")
