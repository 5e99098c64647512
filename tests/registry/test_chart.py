from embeddinggemma_feasibility.evaluation import Evaluation, Score
from registry.chart import Taught, draw_chart
from registry.outcome import ModelScores


def measure_width(name: str) -> float:
    """Return the share of the chart's width that the bars have when they belong to this type."""
    scores = ModelScores(score=1, unseen=Evaluation(document_count=1, value_by_type={name: Score(true_positives=1)}))
    figure = draw_chart([1, 0.5], scores, None, Taught((), {}, {}))
    figure.draw_without_rendering()
    return float(figure.axes[1].get_position().width)


def test_chart_has_room_for_the_bars_of_a_type_with_a_long_name() -> None:
    assert measure_width("x" * 100) > 0.75 * measure_width("party")
