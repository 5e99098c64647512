"""Promotion: challenger and champion are compared, and the challenger is promoted unless it is worse."""

from collections import Counter
from dataclasses import dataclass
from math import comb

from embeddinggemma_feasibility.calibration import Reliability
from embeddinggemma_feasibility.evaluation import LabelledValue, Predictions, evaluate, find_mistakes
from feedback.training_set import TrainingSet
from registry.outcome import Corrections, Decision, DocumentChange, Effect, ModelScores

_CHANCE, _CHANCE_FOR_SUSPECTS, _CHANCE_OF_DRIFT = 0.01, 0.1, 0.001
_ENOUGH_MEASURED = 5
_SET_ASIDE = (
    "This feedback is set aside: correct its annotations and send it again, or insist on them with "
    "POST /jobs/{job_id}/teach."
)


@dataclass(frozen=True)
class Contestant:
    """A model in the comparison: its version, None for a challenger, and what it finds.

    In the documents of the training set, `served` is what the served tagger finds; in the measured documents, `unseen`
    is what the tagger that is blind to each of them finds.
    """

    version: str | None
    served: Predictions
    unseen: Predictions


@dataclass(frozen=True)
class Comparison:
    """The scores of both models; of the measured values, only the challenger gets `lost` wrong, the champion `won`.

    `agreement` is the value F1 of what the champion finds in the training documents: how far others agree with them.
    `effect` is None without a challenger.
    """

    champion: ModelScores | None
    challenger: ModelScores | None
    lost: int
    won: int
    agreement: float
    effect: Effect | None = None


def compare_models(
    training_set: TrainingSet,
    champion: Contestant | None,
    challenger: Contestant | None,
    reliability: Reliability | None = None,
) -> Comparison:
    """Score both models on the measured documents, and count how many corrections each reproduces.

    `reliability` is the challenger's.
    """
    before = find_mistakes(training_set.training, get_served(training_set, champion))
    after = find_mistakes(training_set.training, get_served(training_set, challenger))
    wrong_before = find_mistakes(training_set.measured, champion.unseen) if champion else set()
    wrong_after = find_mistakes(training_set.measured, challenger.unseen) if challenger else set()
    lost, won = wrong_after - wrong_before, wrong_before - wrong_after
    return Comparison(
        champion=_score_model(training_set, champion, before),
        challenger=_score_model(training_set, challenger, before, reliability),
        lost=len(lost),
        won=len(won),
        agreement=evaluate(training_set.training, get_served(training_set, champion)).value.f1,
        effect=_describe_effect(before, after, lost, won) if challenger else None,
    )


def get_served(training_set: TrainingSet, model: Contestant | None) -> Predictions:
    """Return what the served tagger finds in the documents of the training set, nothing where there is no model."""
    return model.served if model else {data.document_id: [] for data in training_set.training}


def decide(training_set: TrainingSet, comparison: Comparison) -> tuple[Decision, str]:
    """Decide about the challenger and say why.

    It is promoted unless its score is lower by more than chance: if each value that only one of the two models gets
    wrong were as likely to be lost as won, so many lost or more would have a probability below 0.01 (McNemar's exact
    test, 1947, one-sided; decision 0003). What the versions before it lost by chance is added to
    what it loses: together, the probability must not be below 0.001.

    A version that unlearns is promoted whatever its score.

    A part of a refused batch may be too small to do much harm, so it is refused if that probability is below 0.1, or if
    the champion finds less than half as much of what is marked in its documents as in others. What a person insists on
    is promoted.
    """
    challenger, champion = comparison.challenger, comparison.champion
    if challenger is None:
        return Decision.NOT_TRAINED, "No model was trained: the documents were deleted, or what they taught withdrawn."
    if champion is None:
        return Decision.PROMOTED, "Promoted: it is the first version, and it finds entities."
    count = len(training_set.measured)
    if count < _ENOUGH_MEASURED:
        few = f"too few earlier documents ({count}) to compare it with version {champion.version}"
        return Decision.PROMOTED, f"Promoted: {few}."
    return _judge(training_set, comparison, champion, challenger)


def _judge(
    training_set: TrainingSet, comparison: Comparison, champion: ModelScores, challenger: ModelScores
) -> tuple[Decision, str]:
    before, after = champion.unseen.value.f1, challenger.unseen.value.f1
    documents = f"{len(training_set.measured)} documents that neither has seen"
    scores = f"value F1 {after:.3f}, version {champion.version} {before:.3f}, on {documents}"
    if training_set.unlearnings:
        return Decision.PROMOTED, f"Promoted whatever its score, since it unlearns: {scores}."
    if training_set.insisting:
        return (
            Decision.PROMOTED,
            f"Promoted: {scores}. {', '.join(training_set.insisting)} insisted on the annotations.",
        )
    if training_set.is_suspected and comparison.agreement < before / 2:
        found = f"version {champion.version} has value F1 {comparison.agreement:.3f} on them and {before:.3f} on others"
        return Decision.NOT_PROMOTED, f"Not promoted: the documents contradict what was learned: {found}. {_SET_ASIDE}"
    if after >= before:
        return Decision.PROMOTED, f"Promoted: {scores}."
    scores = f"{scores}, with {comparison.lost} values lost and {comparison.won} won"
    if too_much := _describe_loss(training_set, comparison):
        return Decision.NOT_PROMOTED, f"Not promoted: {scores}{too_much}. {_SET_ASIDE}"
    return Decision.PROMOTED, f"Promoted: {scores}, which may be chance."


def _describe_loss(training_set: TrainingSet, comparison: Comparison) -> str | None:
    """Say why a loss is more than chance, None if it may be chance."""
    chance = _CHANCE_FOR_SUSPECTS if training_set.is_suspected else _CHANCE
    if _probability_by_chance(comparison.lost, comparison.won) < chance:
        part = " for a part of what was refused together" if training_set.is_suspected else ""
        return f", which is more than chance{part}"
    lost, won = training_set.drift.lost + comparison.lost, training_set.drift.won + comparison.won
    if _probability_by_chance(lost, won) < _CHANCE_OF_DRIFT:
        return f"; with the versions before it {lost} lost and {won} won, which is more than chance"
    return None


def _describe_effect(
    before: set[LabelledValue], after: set[LabelledValue], lost: set[LabelledValue], won: set[LabelledValue]
) -> Effect:
    """Return what the corrections did: `before` and `after` are the mistakes in the documents of the training set."""
    worsened, improved = (Counter((value.document_id, value.type) for value in values) for values in (lost, won))
    changes = [
        DocumentChange(document_id=place[0], type=place[1], improved=improved[place], worsened=worsened[place])
        for place in sorted(improved | worsened)
    ]
    corrected, reproduced = (Counter(value.document_id for value in values) for values in (before, before - after))
    by_document = {
        document_id: Corrections(corrections=count, reproduced=reproduced[document_id])
        for document_id, count in sorted(corrected.items())
    }
    return Effect.summarise(by_document, changes)


def _score_model(
    training_set: TrainingSet,
    model: Contestant | None,
    corrections: set[LabelledValue],
    reliability: Reliability | None = None,
) -> ModelScores | None:
    if model is None:
        return None
    unseen = evaluate(training_set.measured, model.unseen)
    wrong = find_mistakes(training_set.training, model.served)
    reproduced = 1 - len(corrections & wrong) / len(corrections) if corrections else 1.0
    score = unseen.value.f1 if training_set.measured else None
    return ModelScores(
        version=model.version,
        score=score,
        corrections_reproduced=reproduced,
        reliability=reliability,
        unseen=unseen,
    )


def _probability_by_chance(lost: int, won: int) -> float:
    """Return the probability of at least `lost` heads in `lost + won` tosses of a fair coin."""
    differing = lost + won
    return sum(comb(differing, count) for count in range(lost, differing + 1)) / 2.0**differing
