import pytest

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.evaluation import Evaluation, LabelledValue, Score
from feedback.promotion import Comparison, Contestant, compare_models, decide
from feedback.training_set import TrainingSet
from registry.outcome import Decision, ModelScores

TEXT = "Acme Ltd pays Bell. ACME, Ltd!"
MISSED, WRONG = LabelledValue("d", "party", "bell"), LabelledValue("d", "party", "pays")


def entity(value: str) -> Entity:
    start = TEXT.index(value)
    return Entity("party", value, start, start + len(value), 0.9)


def document(name: str) -> AnnotationData:
    return AnnotationData(name, TEXT, (Span(0, 8, "party"), Span(14, 18, "party")))


def build_training_set(held_out: int, corrections: set[LabelledValue] | None = None) -> TrainingSet:
    """A document "d" that is learned, and so many held-out ones."""
    held_out_documents = [document(f"h{number}") for number in range(held_out)]
    return TrainingSet([], [document("d")], [], held_out_documents, [], [], corrections or set())


def find(training_set: TrainingSet, *values: str, held_out: tuple[str, ...], version: str | None = None) -> Contestant:
    """A model that finds some values in the document that is learned, and others in each held-out one."""
    predictions = {data.document_id: [entity(value) for value in held_out] for data in training_set.held_out}
    return Contestant(version, {**predictions, "d": [entity(value) for value in values]})


def score(f1_of_ten: int, version: str | None = None, held_out: int = 5) -> ModelScores:
    value = Score(true_positives=f1_of_ten, false_positives=10 - f1_of_ten, false_negatives=10 - f1_of_ten)
    evaluation = Evaluation(document_count=held_out, value=value)
    return ModelScores(version=version, score=f1_of_ten / 10, held_out=evaluation)


def test_correction_is_reproduced_by_a_found_value_and_by_a_dropped_mistake() -> None:
    training_set = build_training_set(0)
    champion = find(training_set, "pays", held_out=(), version="1")
    challenger = find(training_set, "Acme Ltd", held_out=())
    compared = compare_models(training_set, champion, challenger)
    assert compared.champion
    assert compared.champion.corrections_reproduced == 0
    assert compared.challenger
    assert compared.challenger.corrections_reproduced == pytest.approx(2 / 3)
    assert (compared.lost, compared.won) == (0, 2)


@pytest.mark.parametrize(("held_out", "expected"), [(0, 1.0), (1, 0.9), (4, 0.6), (5, 0.5), (9, 0.5)])
def test_corrections_weigh_less_with_each_held_out_document(held_out: int, expected: float) -> None:
    training_set = build_training_set(held_out, {MISSED, WRONG})
    challenger = find(training_set, "Acme Ltd", "Bell", held_out=("Acme Ltd", "pays"))
    compared = compare_models(training_set, None, challenger)
    assert compared.challenger
    assert compared.challenger.score == pytest.approx(expected)
    assert (compared.challenger.corrections_reproduced is None) == (held_out >= 5)


@pytest.mark.parametrize("held_out", [4, 5])
def test_values_lost_are_held_out_ones_and_while_those_are_few_corrections(held_out: int) -> None:
    training_set = build_training_set(held_out, {MISSED})
    champion = find(training_set, "Acme Ltd", "Bell", held_out=("Acme Ltd", "Bell"), version="1")
    challenger = find(training_set, "Acme Ltd", held_out=("Acme Ltd",))
    compared = compare_models(training_set, champion, challenger)
    assert (compared.lost, compared.won) == (held_out + (held_out < 5), 0)


@pytest.mark.parametrize(
    ("challenger", "lost", "won", "decision"),
    [
        (5, 3, 0, Decision.PROMOTED),
        (6, 3, 0, Decision.PROMOTED),
        (4, 2, 0, Decision.PROMOTED),
        (4, 3, 0, Decision.NOT_PROMOTED),
        (4, 6, 4, Decision.PROMOTED),
        (4, 8, 4, Decision.NOT_PROMOTED),
    ],
)
def test_challenger_is_promoted_unless_worse_by_more_than_chance(
    challenger: int, lost: int, won: int, decision: Decision
) -> None:
    decided, reason = decide(build_training_set(5), Comparison(score(5, "3"), score(challenger), lost, won, set()))
    assert decided == decision
    assert "version 3 scores 0.500" in reason


def test_first_version_is_promoted() -> None:
    decided, _ = decide(build_training_set(0), Comparison(None, score(2, held_out=0), 0, 0, set()))
    assert decided == Decision.PROMOTED


def test_without_a_challenger_the_reason_tells_whether_documents_are_held_out_or_deleted() -> None:
    deleted = TrainingSet([], [], [], [], [], [], set())
    held_out = TrainingSet([], [], [], [document("h")], ["h"], [], set())
    assert decide(deleted, Comparison(None, None, 0, 0, set())) == (
        Decision.NOT_TRAINED, "No model was trained: the documents were deleted.",
    )  # fmt: skip
    decided, reason = decide(held_out, Comparison(score(5, "3", held_out=1), None, 0, 0, set()))
    assert decided == Decision.NOT_TRAINED
    assert "Version 3 has value F1 0.500 on 1 held-out documents" in reason
