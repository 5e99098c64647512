import dataclasses

import pytest

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.evaluation import Evaluation, Score
from embeddinggemma_feasibility.halves import half_of
from feedback.drift import Drift
from feedback.promotion import Comparison, Contestant, compare_models, decide
from feedback.training_set import TrainingSet
from registry.outcome import Corrections, Decision, ModelScores

TEXT = "Acme Ltd pays Bell. ACME, Ltd!"
OTHER_HALF = next(text for text in (f"{TEXT} {number}" for number in range(99)) if half_of(text) != half_of(TEXT))


def entity(value: str) -> Entity:
    start = TEXT.index(value)
    return Entity("party", value, start, start + len(value), 0.9)


def document(name: str, text: str = TEXT) -> AnnotationData:
    return AnnotationData(name, text, (Span(0, 8, "party"), Span(14, 18, "party")))


def build_training_set(measured: int) -> TrainingSet:
    """A document "d" that is learned, and so many that measure."""
    replay = [document(f"m{number}", OTHER_HALF) for number in range(measured)]
    return TrainingSet([], [document("d")], replay, measured, {})


def find(training_set: TrainingSet, *values: str, unseen: tuple[str, ...], version: str | None = None) -> Contestant:
    """A model that finds some values in the document that is learned, and others in each measured one."""
    served = {"d": [entity(value) for value in values]}
    return Contestant(
        version, served, {data.document_id: [entity(value) for value in unseen] for data in training_set.measured}
    )


def score(f1_of_ten: int, version: str | None = None) -> ModelScores:
    value = Score(true_positives=f1_of_ten, false_positives=10 - f1_of_ten, false_negatives=10 - f1_of_ten)
    return ModelScores(version=version, score=f1_of_ten / 10, unseen=Evaluation(document_count=5, value=value))


def test_correction_is_reproduced_by_a_found_value_and_by_a_dropped_mistake() -> None:
    training_set = build_training_set(0)
    champion = find(training_set, "pays", unseen=(), version="1")
    challenger = find(training_set, "Acme Ltd", unseen=())
    compared = compare_models(training_set, champion, challenger)
    assert compared.champion
    assert compared.champion.corrections_reproduced == 0
    assert compared.challenger
    assert compared.challenger.corrections_reproduced == pytest.approx(2 / 3)


def test_effect_counts_the_corrections_and_what_changed_elsewhere() -> None:
    training_set = build_training_set(2)
    champion = find(training_set, "pays", unseen=("Acme Ltd",), version="1")
    challenger = find(training_set, "Acme Ltd", unseen=("Bell", "pays"))
    effect = compare_models(training_set, champion, challenger).effect
    assert effect
    assert (effect.corrections, effect.reproduced) == (3, 2)
    assert effect.by_document == {"d": Corrections(corrections=3, reproduced=2)}
    assert [(change.document_id, change.type, change.improved, change.worsened) for change in effect.changes] == [
        ("m0", "party", 1, 2), ("m1", "party", 1, 2),
    ]  # fmt: skip
    assert effect.summary == (
        "2 of 3 corrected values are read right now; in 2 other documents, 2 became right and 4 wrong."
    )
    right = find(training_set, "Acme Ltd", "Bell", unseen=())
    right_already = compare_models(training_set, right, right).effect
    assert right_already
    assert right_already.summary == "No value needed a correction."
    nothing_else = compare_models(build_training_set(0), champion, challenger).effect
    assert nothing_else
    assert nothing_else.summary == "2 of 3 corrected values are read right now."
    assert compare_models(training_set, champion, None).effect is None


def test_models_are_compared_by_what_they_find_in_documents_they_have_not_seen() -> None:
    training_set = build_training_set(3)
    champion = find(training_set, unseen=("Acme Ltd", "Bell"), version="1")
    challenger = find(training_set, "Acme Ltd", "Bell", unseen=("Acme Ltd",))
    compared = compare_models(training_set, champion, challenger)
    assert (compared.lost, compared.won) == (3, 0)
    assert compared.champion
    assert (compared.champion.version, compared.champion.score) == ("1", 1)
    assert compared.challenger
    assert compared.challenger.score == pytest.approx(2 / 3)
    assert compared.challenger.unseen.document_count == 3


def test_score_is_null_where_no_document_measures() -> None:
    training_set = build_training_set(0)
    compared = compare_models(training_set, None, find(training_set, "Bell", unseen=()))
    assert compared.challenger
    assert (compared.challenger.score, compared.champion) == (None, None)


@pytest.mark.parametrize(
    ("challenger", "lost", "won", "decision"),
    [
        (5, 9, 0, Decision.PROMOTED),
        (6, 9, 0, Decision.PROMOTED),
        (4, 6, 0, Decision.PROMOTED),
        (4, 7, 0, Decision.NOT_PROMOTED),
        (4, 11, 2, Decision.PROMOTED),
        (4, 10, 1, Decision.NOT_PROMOTED),
    ],
)
def test_challenger_is_promoted_unless_worse_by_more_than_chance(
    challenger: int, lost: int, won: int, decision: Decision
) -> None:
    decided, reason = decide(build_training_set(5), Comparison(score(5, "3"), score(challenger), lost, won, 1.0))
    assert decided == decision
    assert f"value F1 {challenger / 10:.3f}, version 3 0.500, on 5 documents that neither has seen" in reason
    assert ("set aside" in reason) == (decision == Decision.NOT_PROMOTED)


def test_losses_that_may_each_be_chance_add_up() -> None:
    drifted = dataclasses.replace(build_training_set(5), drift=Drift(lost=20, won=5))
    comparison = Comparison(score(5, "3"), score(4), 6, 1, 1.0)
    assert decide(build_training_set(5), comparison)[0] == Decision.PROMOTED
    decided, reason = decide(drifted, comparison)
    assert decided == Decision.NOT_PROMOTED
    assert (
        "6 values lost and 1 won; with the versions before it 26 lost and 6 won, which is more than chance." in reason
    )
    assert decide(drifted, Comparison(score(5, "3"), score(5), 6, 1, 1.0))[0] == Decision.PROMOTED


def test_what_a_person_insists_on_is_promoted_though_it_is_worse() -> None:
    training_set = dataclasses.replace(build_training_set(5), insisted={"d": "ana"})
    decided, reason = decide(training_set, Comparison(score(5, "3"), score(1), 40, 0, 0.0))
    assert (decided, reason.rpartition(". ")[2]) == (Decision.PROMOTED, "ana insisted on the annotations.")
    with_another = dataclasses.replace(training_set, training=[document("d"), document("e")])
    assert decide(with_another, Comparison(score(5, "3"), score(1), 40, 0, 0.0))[0] == Decision.NOT_PROMOTED


def test_challenger_is_promoted_while_fewer_than_five_documents_measure() -> None:
    decided, reason = decide(build_training_set(4), Comparison(score(5, "3"), score(1), 9, 0, 1.0))
    assert decided == Decision.PROMOTED
    assert "too few earlier documents (4) to compare it with version 3" in reason


def test_first_version_is_promoted() -> None:
    decided, reason = decide(build_training_set(0), Comparison(None, score(2), 0, 0, 1.0))
    assert (decided, "first version" in reason) == (Decision.PROMOTED, True)


def test_without_a_challenger_the_reason_is_that_the_documents_were_deleted() -> None:
    assert decide(TrainingSet([], [], [], 0, {}), Comparison(score(5, "3"), None, 0, 0, 1.0)) == (
        Decision.NOT_TRAINED, "No model was trained: the documents were deleted, or what they taught withdrawn.",
    )  # fmt: skip
