"""Promotion: challenger and champion are compared, and the challenger is promoted unless it is worse."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import comb

from embeddinggemma_feasibility.evaluation import Evaluation, LabelledValue, Predictions, evaluate, find_mistakes
from feedback.held_out import ENOUGH_HELD_OUT
from feedback.training_set import TrainingSet
from registry.outcome import Decision, ModelScores

_CHANCE = 0.2


@dataclass(frozen=True)
class Contestant:
    """A model in the comparison: its version, None for a challenger, and what it finds in each document."""

    version: str | None
    predictions: Predictions


@dataclass(frozen=True)
class Comparison:
    """The scores of both models and the values on which they differ.

    Of the values that the scores count, only the challenger gets `lost` wrong, only the champion `won`.
    `new_corrections` are the values on which the champion and the reviewers of the training documents disagree.
    """

    champion: ModelScores | None
    challenger: ModelScores | None
    lost: int
    won: int
    new_corrections: AbstractSet[LabelledValue]


def compare_models(training_set: TrainingSet, champion: Contestant | None, challenger: Contestant | None) -> Comparison:
    """Score both models on the held-out documents and, while those are few, on the corrections."""
    new_corrections = find_mistakes(training_set.training, get_predictions(training_set, champion))
    corrections = training_set.corrections | new_corrections
    wrong_before, wrong_after = (
        _find_counted_mistakes(training_set, model, corrections) for model in (champion, challenger)
    )
    return Comparison(
        champion=_score_model(training_set, champion, corrections, wrong_before),
        challenger=_score_model(training_set, challenger, corrections, wrong_after),
        lost=len(wrong_after - wrong_before),
        won=len(wrong_before - wrong_after),
        new_corrections=new_corrections,
    )


def get_predictions(training_set: TrainingSet, model: Contestant | None) -> Predictions:
    """Return the model's predictions, nothing where there is no model."""
    if model:
        return model.predictions
    documents = [*training_set.training, *training_set.held_out, *training_set.corrected]
    return {document.document_id: [] for document in documents}


def decide(training_set: TrainingSet, comparison: Comparison) -> tuple[Decision, str]:
    """Decide about the challenger and say why.

    It is promoted unless its score is lower by more than chance: if each value that only one of the two models gets
    wrong were as likely to be lost as won, so many lost or more would have a probability below 0.2 (McNemar's exact
    test, 1947, one-sided; decision 0003).
    """
    challenger, champion = comparison.challenger, comparison.champion
    if challenger is None:
        return Decision.NOT_TRAINED, _explain_no_training(training_set, champion)
    if champion is None:
        return Decision.PROMOTED, "Promoted: it is the first version, and it finds entities."
    measured = f"{challenger.held_out.document_count} held-out documents"
    few = challenger.corrections_reproduced is not None
    basis = f"corrections reproduced and {measured}" if few else f"value F1 on {measured}"
    scores = f"it scores {challenger.score:.3f}, version {champion.version} scores {champion.score:.3f} ({basis})"
    if challenger.score >= champion.score:
        return Decision.PROMOTED, f"Promoted: {scores}."
    scores = f"{scores}, with {comparison.lost} values lost and {comparison.won} won"
    if _probability_by_chance(comparison.lost, comparison.won) >= _CHANCE:
        return Decision.PROMOTED, f"Promoted: {scores}, which may be chance."
    return Decision.NOT_PROMOTED, f"Not promoted: {scores}, which is more than chance."


def _find_counted_mistakes(
    training_set: TrainingSet, model: Contestant | None, corrections: AbstractSet[LabelledValue]
) -> set[LabelledValue]:
    """Return the model's mistakes that its score counts."""
    predictions = get_predictions(training_set, model)
    mistakes = find_mistakes(training_set.held_out, predictions)
    if training_set.has_few_held_out:
        learned = [*training_set.training, *training_set.corrected]
        mistakes |= find_mistakes(learned, predictions) & corrections
    return mistakes


def _score_model(
    training_set: TrainingSet,
    model: Contestant | None,
    corrections: AbstractSet[LabelledValue],
    mistakes: AbstractSet[LabelledValue],
) -> ModelScores | None:
    if model is None:
        return None
    held_out = evaluate(training_set.held_out, model.predictions)
    reproduced = _share_reproduced(corrections, mistakes) if training_set.has_few_held_out else None
    score = _combine_scores(held_out, reproduced)
    return ModelScores(version=model.version, score=score, corrections_reproduced=reproduced, held_out=held_out)


def _share_reproduced(corrections: AbstractSet[LabelledValue], mistakes: AbstractSet[LabelledValue]) -> float:
    """Return the share of the corrections on which prediction and annotation now agree; 1 if there are none."""
    return 1 - len(corrections & mistakes) / len(corrections) if corrections else 1.0


def _combine_scores(held_out: Evaluation, corrections_reproduced: float | None) -> float:
    """Return the value F1 on the held-out documents; with n < 5 of them, it weighs n/5 and the corrections the rest."""
    if corrections_reproduced is None:
        return held_out.value.f1
    weight = min(held_out.document_count, ENOUGH_HELD_OUT) / ENOUGH_HELD_OUT
    return weight * held_out.value.f1 + (1 - weight) * corrections_reproduced


def _probability_by_chance(lost: int, won: int) -> float:
    """Return the probability of at least `lost` heads in `lost + won` tosses of a fair coin."""
    differing = lost + won
    return sum(comb(differing, count) for count in range(lost, differing + 1)) / 2.0**differing


def _explain_no_training(training_set: TrainingSet, champion: ModelScores | None) -> str:
    if not training_set.held_out_feedback:
        return "No model was trained: the documents were deleted."
    count = len(training_set.held_out_feedback)
    explained = f"No model was trained: feedback on held-out documents ({count}) measures models instead."
    if champion is None:
        return f"{explained} There is no model to measure yet."
    held_out = champion.held_out
    f1 = f"value F1 {held_out.value.f1:.3f} on {held_out.document_count} held-out documents"
    return f"{explained} Version {champion.version} has {f1}."
