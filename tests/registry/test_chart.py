from matplotlib.patches import Rectangle

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.calibration import Bin, Reliability
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


def read_titles(scores: ModelScores, taught: Taught) -> list[str]:
    """Return the titles of the panels, each of which shows something."""
    panels = draw_chart([1, 0.5], scores, None, taught).axes
    assert all(panel.patches or panel.lines for panel in panels)
    return [panel.get_title() for panel in panels]


def test_chart_shows_how_documents_were_read_before_they_were_taught_until_something_is_measured(
    contracts: list[AnnotationData],
) -> None:
    found = {
        data.document_id: [
            Entity(span.type, data.text[span.start : span.end], span.start, span.end, 1) for span in data.spans
        ]
        for data in contracts
    }
    taught = Taught(contracts, {data.document_id: [] for data in contracts}, found)
    assert read_titles(ModelScores(score=None, unseen=Evaluation()), taught) == [
        "Training loss",
        "Value F1 on 8 taught documents",
        "Value F1 before and after it was taught",
    ]
    by_document = draw_chart([1], ModelScores(score=None, unseen=Evaluation()), None, taught).axes[2]
    assert [bar.get_width() for bar in by_document.patches if isinstance(bar, Rectangle)] == [0.0] * 8 + [1.0] * 8
    measured = ModelScores(
        score=1,
        unseen=Evaluation(document_count=3, value_by_type={"party": Score(true_positives=1)}),
        reliability=Reliability(error=0.1, bins=[Bin(confidence=0.5, right=0.5, size=2)]),
    )
    assert read_titles(measured, taught)[1:] == [
        "Value F1 on 3 unseen documents",
        "Reliability of 2 values: calibration error 0.100",
    ]
