"""Carrying spans from a text as written over to the same text as a PDF gives it."""

from collections.abc import Iterable

from embeddinggemma_feasibility.annotation_data import Span


def carry_spans(written: str, spans: Iterable[Span], read: str) -> list[Span]:
    """Return the spans on `read`, which has the same characters as `written` but other blanks between them.

    Raises ValueError where the two differ in the number of characters that are not blank.
    """
    written_places = [index for index, character in enumerate(written) if not character.isspace()]
    read_places = [index for index, character in enumerate(read) if not character.isspace()]
    if len(written_places) != len(read_places):
        raise ValueError(f"{len(written_places)} characters were written and {len(read_places)} read")
    rank = {index: number for number, index in enumerate(written_places)}
    carried = []
    for span in spans:
        inside = [rank[index] for index in range(span.start, span.end) if index in rank]
        carried.append(Span(read_places[inside[0]], read_places[inside[-1]] + 1, span.type))
    return carried
