import pytest

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.evaluation import (
    Evaluation,
    ModelScores,
    Score,
    decide,
    evaluate,
    find_corrections,
    find_mistakes,
    normalise_value,
    score_model,
    share_kept,
)

DATA = AnnotationData("d", "Acme Ltd pays Bell. ACME, Ltd!", (Span(0, 8, "party"), Span(14, 18, "party")))


def entity(start: int, end: int, name: str = "party") -> Entity:
    return Entity(name, DATA.text[start:end], start, end, 0.9)


def held_out(documents: int, f1_of_ten: int) -> Evaluation:
    score = Score(true_positives=f1_of_ten, false_positives=10 - f1_of_ten, false_negatives=10 - f1_of_ten)
    return Evaluation(document_count=documents, value=score)


@pytest.mark.parametrize(("value", "normalised"), [("ACME,  Ltd!", "acme ltd"), ("Straße_1", "strasse 1"), ("§", "")])
def test_value_is_normalised_as_the_data_readme_says(value: str, normalised: str) -> None:
    assert normalise_value(value) == normalised


def test_repeated_value_counts_once_by_value_and_each_time_by_span() -> None:
    evaluation = evaluate([DATA], {"d": [entity(0, 8), entity(20, 29)]})
    assert (evaluation.value.true_positives, evaluation.value.false_positives, evaluation.value.false_negatives) == (
        1, 0, 1,
    )  # fmt: skip
    assert (evaluation.span.true_positives, evaluation.span.false_positives, evaluation.span.false_negatives) == (
        1, 1, 1,
    )  # fmt: skip
    assert evaluation.value_by_type["party"].f1 == pytest.approx(2 / 3)


def test_type_the_reviewer_did_not_know_is_neither_right_nor_wrong() -> None:
    data = AnnotationData("d", DATA.text, DATA.spans, frozenset({"party"}))
    assert evaluate([data], {"d": [entity(0, 8, "brand")]}).value.false_positives == 0


def test_corrections_are_what_was_missed_and_what_was_wrong() -> None:
    assert find_corrections(DATA, [entity(0, 8), entity(9, 13)]) == {("d", "party", "bell"), ("d", "party", "pays")}


def test_share_kept_counts_a_dropped_mistake_and_a_found_value() -> None:
    corrections = find_corrections(DATA, [entity(9, 13)])
    assert len(corrections) == 3
    assert share_kept(corrections, find_mistakes([DATA], {"d": [entity(0, 8)]})) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("documents", "expected"), [(0, 1.0), (1, 0.9), (4, 0.6), (5, 0.5), (9, 0.5)])
def test_corrections_kept_weigh_less_with_each_held_out_document(documents: int, expected: float) -> None:
    assert score_model(held_out(documents, 5), 1.0).score == pytest.approx(expected)


@pytest.mark.parametrize(
    ("challenger", "lost", "won", "promoted"),
    [(5, 3, 0, True), (6, 3, 0, True), (4, 2, 0, True), (4, 3, 0, False), (4, 6, 4, True), (4, 8, 4, False)],
)
def test_challenger_is_promoted_unless_worse_by_more_than_chance(
    challenger: int, lost: int, won: int, promoted: bool
) -> None:
    champion = ModelScores(version="3", score=0.5, held_out=held_out(5, 5))
    decision, reason = decide(score_model(held_out(5, challenger), None), champion, lost, won)
    assert decision is promoted
    assert "version 3 scores 0.500" in reason


def test_first_version_is_promoted() -> None:
    assert decide(score_model(held_out(0, 0), 0.2), None, 0, 0)[0]
