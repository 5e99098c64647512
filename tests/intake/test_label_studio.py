import pytest

from intake.label_studio import LabelStudioAnnotation, LabelStudioTask, get_latest_annotation, read_labels
from registry.errors import InvalidInputError

TEXT = "😀 Acme,\n  Lda. pays 100 €."


def mark(start: int, end: int, *labels: str, text: str = "") -> dict[str, object]:
    return {"type": "labels", "value": {"start": start, "end": end, "text": text, "labels": labels}}


def read_annotation(*results: dict[str, object]) -> LabelStudioAnnotation:
    return LabelStudioAnnotation.model_validate({"result": results})


def read_task(*updated_at: str | None) -> LabelStudioTask:
    annotations = [{"result": [mark(0, 1, str(index))], "updated_at": at} for index, at in enumerate(updated_at)]
    return LabelStudioTask.model_validate({"annotations": annotations})


def test_offsets_count_code_points_and_the_value_is_the_text_there() -> None:
    annotation = read_annotation(mark(2, 14, "party", text="Acme,\\n Lda."), mark(20, 25, "amount"))
    found = read_labels(annotation, TEXT, "ana")
    assert [(each.type, each.value, each.reviewer) for each in found] == [
        ("party", "Acme,\n  Lda.", "ana"),
        ("amount", "100 €", "ana"),
    ]


def test_span_marked_twice_with_a_label_is_one_annotation() -> None:
    assert len(read_labels(read_annotation(mark(2, 6, "party"), mark(2, 6, "party", "buyer")), TEXT, "ana")) == 2


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 3), (0, len(TEXT) + 1)])
def test_span_outside_the_text_is_refused(start: int, end: int) -> None:
    with pytest.raises(InvalidInputError, match="outside"):
        read_labels(read_annotation(mark(start, end, "party")), TEXT, "ana")


def test_latest_of_several_annotations_counts_in_any_zone() -> None:
    task = read_task("2026-01-01T12:00:00.5Z", "2026-01-01T12:00:00Z", "2026-01-01T13:00:00+02:00")
    assert get_latest_annotation([task]).spans[0].labels == ["0"]


def test_annotation_alone_needs_no_time() -> None:
    assert get_latest_annotation([read_task(None)]).spans


@pytest.mark.parametrize(
    "times", [(None, None), ("2026-01-01T12:00:00Z", None), ("2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00")]
)
def test_several_annotations_without_times_of_their_own_are_refused(times: tuple[str | None, ...]) -> None:
    with pytest.raises(InvalidInputError, match="give each its own `updated_at`"):
        get_latest_annotation([read_task(*times)])


def test_results_of_other_forms_are_left_out() -> None:
    others: list[dict[str, object]] = [
        {"type": "relation", "from_id": "a", "to_id": "b"},
        {"type": "hypertextlabels", "value": {"start": "/p[1]/text()[1]", "end": "/p[2]", "labels": ["x"]}},
    ]
    assert [each.type for each in read_labels(read_annotation(*others, mark(2, 6, "party")), TEXT, "ana")] == ["party"]
