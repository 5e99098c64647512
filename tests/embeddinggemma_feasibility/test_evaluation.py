import pytest

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.evaluation import evaluate, find_corrections, normalise_value

DATA = AnnotationData("d", "Acme Ltd pays Bell. ACME, Ltd!", (Span(0, 8, "party"), Span(14, 18, "party")))


def entity(start: int, end: int, name: str = "party") -> Entity:
    return Entity(name, DATA.text[start:end], start, end, 0.9)


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
