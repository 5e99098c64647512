"""Scores of predicted entities on annotated documents: values first, exact spans second."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, Field, computed_field

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span

_NO_WORD = re.compile(r"[\W_]+")

_Item = TypeVar("_Item", "LabelledValue", Span)

Predictions = Mapping[str, Sequence[Entity]]  # each document's entities by its id


class LabelledValue(NamedTuple):
    """A value of one type in one document, wherever and however often it occurs there; normalised."""

    document_id: str
    type: str
    value: str


class Score(BaseModel):
    """Micro-averaged counts and their F1; without any gold or predicted items F1 is 1."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall."""
        errors = self.false_positives + self.false_negatives
        return 2 * self.true_positives / (2 * self.true_positives + errors) if self.true_positives or errors else 1.0

    def add(self, gold: AbstractSet[Hashable], predicted: AbstractSet[Hashable]) -> None:
        """Count the items of one document."""
        self.true_positives += len(gold & predicted)
        self.false_positives += len(predicted - gold)
        self.false_negatives += len(gold - predicted)


class Evaluation(BaseModel):
    """A model's scores on some documents."""

    document_count: int = 0
    value: Score = Field(default_factory=Score)
    span: Score = Field(default_factory=Score)
    value_by_type: dict[str, Score] = Field(default_factory=dict)
    span_by_type: dict[str, Score] = Field(default_factory=dict)


def normalise_value(value: str) -> str:
    """Return the value case-folded, each run of characters that are neither letters nor digits as one space."""
    return _NO_WORD.sub(" ", value.casefold()).strip()


def gold_values(document: AnnotationData) -> set[LabelledValue]:
    """Return the values that are marked in a document."""
    return {
        LabelledValue(document.document_id, span.type, normalise_value(document.text[span.start : span.end]))
        for span in document.spans
    }


def predicted_values(document: AnnotationData, entities: Iterable[Entity]) -> set[LabelledValue]:
    """Return the values that are predicted in a document, without the types its reviewer did not know."""
    return {
        LabelledValue(document.document_id, entity.type, normalise_value(entity.value))
        for entity in entities
        if document.is_reviewed(entity.type)
    }


def evaluate(documents: Sequence[AnnotationData], predictions: Predictions) -> Evaluation:
    """Return the scores of the predictions on the documents; raises KeyError for a document without predictions."""
    evaluation = Evaluation(document_count=len(documents))
    for document in documents:
        found = [entity for entity in predictions[document.document_id] if document.is_reviewed(entity.type)]
        gold_spans, found_spans = set(document.spans), {Span(each.start, each.end, each.type) for each in found}
        gold, predicted = gold_values(document), predicted_values(document, found)
        evaluation.value.add(gold, predicted)
        evaluation.span.add(gold_spans, found_spans)
        for name in {value.type for value in gold | predicted}:
            _add_of_type(evaluation.value_by_type, name, gold, predicted)
            _add_of_type(evaluation.span_by_type, name, gold_spans, found_spans)
    return evaluation


def find_corrections(document: AnnotationData, entities: Iterable[Entity]) -> set[LabelledValue]:
    """Return the values on which prediction and annotation disagree: the missed and the wrongly found ones."""
    return gold_values(document) ^ predicted_values(document, entities)


def find_mistakes(documents: Sequence[AnnotationData], predictions: Predictions) -> set[LabelledValue]:
    """Return the values on which prediction and annotation disagree in any of the documents."""
    return {value for document in documents for value in find_corrections(document, predictions[document.document_id])}


def _add_of_type(by_type: dict[str, Score], name: str, gold: set[_Item], predicted: set[_Item]) -> None:
    of_type = by_type.setdefault(name, Score())
    of_type.add({item for item in gold if item.type == name}, {item for item in predicted if item.type == name})
