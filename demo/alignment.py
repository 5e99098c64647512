"""Alignment of a text as written with the text that was read from its PDF."""

from collections.abc import Iterable

from embeddinggemma_feasibility.annotation_data import Span


def carry_spans(written: str, spans: Iterable[Span], read: str) -> list[Span]:
    """Return spans of `written` as offsets into `read`, which differs from it in whitespace only.

    Raises ValueError if the two differ in their number of non-whitespace characters.
    """
    written_offsets = [index for index, character in enumerate(written) if not character.isspace()]
    read_offsets = [index for index, character in enumerate(read) if not character.isspace()]
    if len(written_offsets) != len(read_offsets):
        raise ValueError(f"{len(written_offsets)} characters were written and {len(read_offsets)} read")
    rank = {index: number for number, index in enumerate(written_offsets)}
    carried = []
    for span in spans:
        inside = [rank[index] for index in range(span.start, span.end) if index in rank]
        carried.append(Span(read_offsets[inside[0]], read_offsets[inside[-1]] + 1, span.type))
    return carried
