"""Contradictions: annotations that are probably wrong, according to what was learned from other documents."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.evaluation import LabelledValue, Predictions, gold_values, normalise_value

_SURE = 0.9


class Contradiction(NamedTuple):
    """A value that is found with a type, and not marked with it anywhere in its document.

    The offsets are of its likeliest mention, and `marked_as` are the types of the annotations that overlap it.
    """

    document_id: str
    start: int
    end: int
    type: str
    marked_as: tuple[str, ...]
    confidence: float


def find_contradictions(documents: Sequence[AnnotationData], unseen: Predictions) -> list[Contradiction]:
    """Return the values found with a confidence of at least 0.9 and not marked, documents with most of them first.

    `unseen` holds what a calibrated tagger that has not learned from a document finds in it, the likeliest first.
    """
    by_document = [
        [each for each in list_unmarked(data, unseen[data.document_id]) if each.confidence >= _SURE]
        for data in documents
    ]
    return [each for some in sorted(by_document, key=len, reverse=True) for each in some]


def list_unmarked(data: AnnotationData, found: Sequence[Entity]) -> Iterator[Contradiction]:
    """Yield each value that is found in a document and not marked, at its likeliest mention."""
    known = gold_values(data)
    for entity in found:
        value = LabelledValue(data.document_id, entity.type, normalise_value(entity.value))
        if data.is_reviewed(entity.type) and value not in known:
            known.add(value)
            overlapping = [span for span in data.spans if span.start < entity.end and span.end > entity.start]
            types = tuple(sorted({span.type for span in overlapping}))
            yield Contradiction(
                data.document_id, entity.start, entity.end, entity.type, types, round(entity.confidence, 3)
            )
