import pytest

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.calibration import (
    Calibration,
    Example,
    Measurement,
    calibrate,
    measure,
    summarise,
)

TEXT = "Acme Ltd pays Bell. ACME, Ltd!"
DATA = AnnotationData("d", TEXT, (Span(0, 8, "party"), Span(14, 18, "party")), frozenset({"party"}))


def entity(value: str, posterior: float, name: str = "party") -> Entity:
    start = TEXT.index(value)
    return Entity(name, value, start, start + len(value), posterior)


def measurements(
    posterior_of_right: float, posterior_of_wrong: float, count: int = 40, name: str = "party"
) -> list[Measurement]:
    """Documents in which a right value is ranked first, and a wrong one second."""
    right, wrong = Example(name, posterior_of_right, True, True), Example(name, posterior_of_wrong, False, False)
    return [Measurement(examples=[right, wrong], gold_count=1) for _ in range(count)]


def confidences(calibration: Calibration, *ranked: Entity) -> list[float]:
    return [found.confidence for found in calibration.select(ranked)]


def test_ranked_values_are_compared_once_each_with_the_marked_ones() -> None:
    ranked = [entity("ACME, Ltd", 0.9), entity("pays", 0.6), entity("Acme Ltd", 0.5), entity("Bell", 0.4, "brand")]
    assert measure(DATA, ranked) == Measurement(
        examples=[Example("party", 0.9, True, True), Example("party", 0.6, False, False)], gold_count=2
    )


def test_values_that_were_right_get_high_confidences_and_wrong_ones_are_dropped() -> None:
    calibration = calibrate(measurements(0.9, 0.1))
    (confidence,) = confidences(calibration, entity("Acme Ltd", 0.9), entity("pays", 0.1))
    assert confidence > 0.9


def test_posterior_that_is_too_high_is_corrected() -> None:
    half_right = [Example("party", 0.99, True, number % 2 == 0) for number in range(200)]
    calibration = calibrate([Measurement(examples=[example], gold_count=1) for example in half_right])
    (confidence,) = confidences(calibration, entity("Acme Ltd", 0.99))
    assert confidence == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("gold_count", [1, 3])
def test_threshold_is_half_of_the_best_expected_f1(gold_count: int) -> None:
    found = [Measurement(examples=[Example("party", 0.99, True, True)], gold_count=gold_count) for _ in range(500)]
    recall = 1 / gold_count
    assert calibrate(found).threshold == pytest.approx(recall / (1 + recall), abs=0.02)


def test_mention_of_a_found_value_has_the_confidence_of_its_likeliest_mention() -> None:
    ranked = [entity("Acme Ltd", 0.95), entity("ACME, Ltd", 0.5), entity("Bell", 0.5)]
    first, second, other = confidences(Calibration(), *ranked)
    assert first == second > other


def test_mention_is_dropped_if_its_own_posterior_is_too_low() -> None:
    ranked = [entity("Acme Ltd", 0.95), entity("ACME, Ltd", 0.01)]
    assert len(confidences(Calibration(threshold=0.5), *ranked)) == 1


def test_likeliest_value_of_its_type_is_more_probable_than_another_with_the_same_posterior() -> None:
    first, second = confidences(Calibration(), entity("Acme Ltd", 0.5), entity("Bell", 0.5))
    assert first > second


def test_type_without_examples_has_the_common_coefficients_and_one_with_many_its_own() -> None:
    rare_errors = measurements(0.5, 0.01, name="party")
    often_wrong = [
        Measurement(examples=[Example("brand", 0.9, True, False)], gold_count=0) for _ in range(len(rare_errors))
    ]
    calibration = calibrate([*rare_errors, *often_wrong])
    any_threshold = calibration.model_copy(update={"threshold": 0.0})
    party, brand, new = confidences(
        any_threshold, entity("Bell", 0.9), entity("Bell", 0.9, "brand"), entity("Bell", 0.9, "new")
    )
    assert brand < new < party
    assert set(calibration.of_type) == {"party", "brand"}


def test_nothing_measured_is_the_default_calibration() -> None:
    assert calibrate([]) == calibrate([Measurement(examples=[], gold_count=3)]) == Calibration()


def test_calibration_error_is_low_for_well_calibrated_examples_and_high_for_overconfident_ones() -> None:
    identity = Calibration(of_any_type=(0.0, 1.0, 0.0), threshold=0.0)

    def error(share_of_posterior: float) -> float:
        examples = [
            Example("x", percent / 100, False, number < percent * share_of_posterior)
            for percent in range(1, 100)
            for number in range(100)
        ]
        return summarise(identity.estimate_found([Measurement(examples=examples, gold_count=0)])).error

    assert error(1) < 0.03
    assert error(0.5) == pytest.approx(0.25, abs=0.03)


def test_bins_hold_the_extracted_values_only() -> None:
    calibration = Calibration(of_any_type=(0.0, 1.0, 0.0), threshold=0.5)
    examples = [Example("x", 0.95, True, True), Example("x", 0.93, False, False), Example("x", 0.4, False, True)]
    reliability = summarise(calibration.estimate_found([Measurement(examples=examples, gold_count=2)]))
    [only] = reliability.bins
    assert (only.size, only.right) == (2, 0.5)
    assert only.confidence == pytest.approx(0.94)
    assert reliability.error == pytest.approx(0.44)


def test_uncertain_values_are_those_extracted_though_wrong_and_left_out_though_right_each_once() -> None:
    calibration = Calibration(of_any_type=(0, 1, 0), threshold=0.5)
    likeliest_first = (("Acme", 0.9), ("ACME", 0.6), ("Bell", 0.3))
    ranked = [Entity("party", value, 0, 4, posterior) for value, posterior in likeliest_first]
    assert calibration.count_uncertain(ranked) == pytest.approx(0.1 + 0.3)
