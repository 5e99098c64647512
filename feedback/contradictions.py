"""Contradictions: annotations that are probably wrong, in the opinion of a model that has not seen their document."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.evaluation import LabelledValue, Predictions, gold_values, normalise_value

_SURE = 0.9


class Contradiction(NamedTuple):
    """A value that is marked with a type but not found, or found but not marked; the offsets are of a mention.

    `confidence` is the probability that the annotation is wrong, `marked_as` the types that the value is marked with.
    """

    document_id: str
    start: int
    end: int
    type: str
    marked_as: tuple[str, ...]
    confidence: float


def find_contradictions(documents: Sequence[AnnotationData], unseen: Predictions) -> list[Contradiction]:
    """Return the annotations that are wrong with a probability of at least 0.9, documents with most of them first.

    `unseen` holds what a calibrated tagger that has not seen a document finds in it. What it finds is right with the
    probability that is its confidence. A marked value that it does not find is wrong with the probability that a right
    one is found, estimated from all values of its type (Laplace's rule of succession).
    """
    marked, found = Counter[str](), Counter[str]()
    for data in documents:
        gold = gold_values(data)
        marked.update(value.type for value in gold)
        found.update(value.type for value in gold if value in _index(data, unseen[data.document_id]))
    recall = {name: (found[name] + 1) / (marked[name] + 2) for name in marked}
    by_document = [list(_contradict(data, unseen[data.document_id], recall)) for data in documents]
    return [each for some in sorted(by_document, key=len, reverse=True) for each in some]


def _contradict(data: AnnotationData, predicted: Sequence[Entity], recall: dict[str, float]) -> Iterator[Contradiction]:
    marks = [Entity(span.type, data.text[span.start : span.end], span.start, span.end, 1.0) for span in data.spans]
    marked, found = _index(data, marks), _index(data, predicted)
    types_of_value = defaultdict(set)
    for value in marked:
        types_of_value[value.value].add(value.type)
    wrong = [(mark, recall[mark.type]) for value, mark in marked.items() if value not in found]
    wrong += [(entity, entity.confidence) for value, entity in found.items() if value not in marked]
    for entity, confidence in sorted(wrong, key=lambda each: each[0].start):
        if confidence >= _SURE and data.is_reviewed(entity.type):
            types = tuple(sorted(types_of_value[normalise_value(entity.value)]))
            yield Contradiction(data.document_id, entity.start, entity.end, entity.type, types, round(confidence, 3))


def _index(data: AnnotationData, entities: Sequence[Entity]) -> dict[LabelledValue, Entity]:
    """Return a mention of each value."""
    return {LabelledValue(data.document_id, each.type, normalise_value(each.value)): each for each in entities}
