"""Scores of a tagger on annotated documents, and the challenger's beside the champion's."""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import comb

from pydantic import BaseModel, Field, computed_field

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity

ENOUGH_HELD_OUT = 5
_CHANCE = 0.2
_NO_WORD = re.compile(r"[\W_]+")

Predictions = Mapping[str, Sequence[Entity]]
Item = tuple[str, str, str]


class Score(BaseModel):
    """Micro-averaged counts and what follows from them; without anything to find or found, F1 is 1."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall."""
        errors = self.false_positives + self.false_negatives
        return 2 * self.true_positives / (2 * self.true_positives + errors) if self.true_positives or errors else 1.0

    def count(self, gold: set[Item], predicted: set[Item]) -> None:
        """Add one comparison of what there is with what was found."""
        self.true_positives += len(gold & predicted)
        self.false_positives += len(predicted - gold)
        self.false_negatives += len(gold - predicted)


class Evaluation(BaseModel):
    """A model's scores on some documents: document-level values first, exact spans second."""

    document_count: int = 0
    value: Score = Field(default_factory=Score)
    span: Score = Field(default_factory=Score)
    value_by_type: dict[str, Score] = Field(default_factory=dict)
    span_by_type: dict[str, Score] = Field(default_factory=dict)


class ModelScores(BaseModel):
    """How one model did in a comparison."""

    version: str | None = Field(None, description="Registered version, once it is one")
    score: float = Field(description="What models are compared by, from 0 to 1: see `combined_score`")
    corrections_kept: float | None = Field(
        None, description="Share of all corrections so far that the model reproduces; None once five are held out"
    )
    held_out: Evaluation = Field(description="Scores on the documents that no model learns from")


def normalise_value(value: str) -> str:
    """Return the value case-folded, each run of characters that are neither letters nor digits as one space."""
    return _NO_WORD.sub(" ", value.casefold()).strip()


def gold_values(document: AnnotationData) -> set[Item]:
    """Return what is marked in a document as (document, type, normalised value)."""
    return {
        (document.document_id, span.type, normalise_value(document.text[span.start : span.end]))
        for span in document.spans
    }


def predicted_values(document: AnnotationData, entities: Iterable[Entity]) -> set[Item]:
    """Return what is predicted in a document as (document, type, normalised value), types not reviewed left out."""
    return {
        (document.document_id, entity.type, normalise_value(entity.value))
        for entity in entities
        if document.is_reviewed(entity.type)
    }


def evaluate(documents: Sequence[AnnotationData], predictions: Predictions) -> Evaluation:
    """Return the scores of `predictions`, which has each document's entities by its id."""
    evaluation = Evaluation(document_count=len(documents))
    for document in documents:
        found = [entity for entity in predictions[document.document_id] if document.is_reviewed(entity.type)]
        gold_spans = {(str(span.start), str(span.end), span.type) for span in document.spans}
        found_spans = {(str(entity.start), str(entity.end), entity.type) for entity in found}
        gold, predicted = gold_values(document), predicted_values(document, found)
        evaluation.value.count(gold, predicted)
        evaluation.span.count(gold_spans, found_spans)
        for name in {item[1] for item in gold | predicted}:
            of_type = evaluation.value_by_type.setdefault(name, Score())
            of_type.count({item for item in gold if item[1] == name}, {item for item in predicted if item[1] == name})
            of_type = evaluation.span_by_type.setdefault(name, Score())
            of_type.count({s for s in gold_spans if s[2] == name}, {s for s in found_spans if s[2] == name})
    return evaluation


def find_corrections(document: AnnotationData, entities: Iterable[Entity]) -> set[Item]:
    """Return the values that prediction and annotation disagree on: those missed and those found wrongly."""
    return gold_values(document) ^ predicted_values(document, entities)


def find_mistakes(documents: Sequence[AnnotationData], predictions: Predictions) -> set[Item]:
    """Return the values that prediction and annotation disagree on in any of the documents."""
    return {item for document in documents for item in find_corrections(document, predictions[document.document_id])}


def share_kept(corrections: set[Item], mistakes: set[Item]) -> float:
    """Return the share of the corrections on which prediction and annotation now agree, 1 if there are none."""
    return 1 - len(corrections & mistakes) / len(corrections) if corrections else 1.0


def score_model(held_out: Evaluation, corrections_kept: float | None) -> ModelScores:
    """Return what challenger and champion are compared by.

    The score is the value F1 on held-out documents; while those are fewer than five, each stands for a fifth of it and
    the share of corrections kept for the rest.
    """
    if corrections_kept is None:
        return ModelScores(score=held_out.value.f1, held_out=held_out)
    weight = min(held_out.document_count, ENOUGH_HELD_OUT) / ENOUGH_HELD_OUT
    score = weight * held_out.value.f1 + (1 - weight) * corrections_kept
    return ModelScores(score=score, corrections_kept=corrections_kept, held_out=held_out)


def decide(challenger: ModelScores, champion: ModelScores | None, lost: int, won: int) -> tuple[bool, str]:
    """Return whether the challenger is promoted, which it is if its score is not worse but by chance, and why.

    `lost` values are wrong in the challenger alone, `won` in the champion alone. If each of them were as likely to be
    the one as the other, so many lost or more must have a probability of a fifth: McNemar's test (1947), exact.
    """
    if champion is None:
        return True, "Promoted: it is the first version, and it finds entities."
    measured = f"{challenger.held_out.document_count} held-out documents"
    basis = f"value F1 on {measured}" if challenger.corrections_kept is None else f"corrections kept and {measured}"
    beside = f"it scores {challenger.score:.3f}, version {champion.version} scores {champion.score:.3f} ({basis})"
    if challenger.score >= champion.score:
        return True, f"Promoted: {beside}."
    differing = lost + won
    chance = sum(comb(differing, count) for count in range(lost, differing + 1)) / 2**differing
    beside = f"{beside}, with {lost} values lost and {won} won"
    if chance >= _CHANCE:
        return True, f"Promoted: {beside}, which may be chance."
    return False, f"Not promoted: {beside}, which is more than chance."
