"""Label Studio's JSON: a list of tasks with their text in `data.text`.

Of several annotations of a task, the latest finished one counts. Notes are what a reviewer writes about a region,
`meta.text`; reviewer and status are in `meta`, too, which Label Studio keeps.
"""

from typing import Any, cast

from pydantic import Field

from intake.formats.annotated_text import AnnotatedText, Details, Identity, Mark, parse_record
from intake.formats.file_format import FileFormat, dump_json, split_array
from intake.label_studio import (
    LabelStudioAnnotation,
    LabelStudioResult,
    LabelStudioTask,
    LabelStudioUser,
    LabelStudioValue,
    get_latest_annotation,
)
from registry.errors import InvalidInputError
from registry.settings import MOST_ANNOTATIONS
from registry.text_types import Note, Text


class _Meta(Details):
    text: list[Note] = Field(default_factory=list, max_length=100, fail_fast=True)


class _Result(LabelStudioResult):
    value: LabelStudioValue = LabelStudioValue()  # relations have none
    meta: _Meta = _Meta()


class _Annotation(LabelStudioAnnotation):
    result: list[_Result] = Field(max_length=MOST_ANNOTATIONS, fail_fast=True)  # type: ignore[assignment]


class _Data(Identity):
    text: Text


class _Task(LabelStudioTask):
    data: _Data
    annotations: list[_Annotation] = Field(max_length=100, fail_fast=True)  # type: ignore[assignment]


def _read(record: str) -> AnnotatedText:
    task = parse_record(_Task, record)
    latest = cast("_Annotation", get_latest_annotation([task]))
    results = [result for result in latest.result if result.type == "labels"]
    reviewer = latest.completed_by.email if isinstance(latest.completed_by, LabelStudioUser) else None
    marks = tuple(mark for result in results for mark in _read_result(result, reviewer))
    counts = {
        "results that are not labels": len(latest.result) - len(results),
        "annotations that are not the latest": len(task.annotations) - 1,
    }
    ignored = {name: count for name, count in counts.items() if count}
    return AnnotatedText(task.data.text, marks, task.data.document_id, task.data.filename, ignored)


def _read_result(result: _Result, reviewer: str | None) -> list[Mark]:
    value, meta = result.value, result.meta
    if value.start is None or value.end is None or value.end <= value.start:
        raise InvalidInputError(f"A result from {value.start} to {value.end} marks no text")
    return [
        Mark(
            type=label,
            start=value.start,
            end=value.end,
            reviewer=meta.reviewer or reviewer,
            notes="\n".join(meta.text) or None,
            status=meta.status,
        )
        for label in value.labels
    ]


def _write(document: AnnotatedText) -> str:
    data = {"text": document.text, **document.metadata}
    results = [_write_mark(mark, number, document.text) for number, mark in enumerate(document.marks, 1)]
    return dump_json({"data": data, "annotations": [{"result": results}]})


def _write_mark(mark: Mark, number: int, text: str) -> dict[str, Any]:
    value = {"start": mark.start, "end": mark.end, "text": text[mark.start : mark.end], "labels": [mark.type]}
    result = {"id": str(number), "from_name": "label", "to_name": "text", "type": "labels", "value": value}
    meta = mark.dump_details()
    if notes := meta.pop("notes", None):
        meta["text"] = [notes]
    return {**result, "meta": meta} if meta else result


LABEL_STUDIO = FileFormat(
    "application/json", "json", split_array, _read, _write, opening="[\n", separator=",\n", closing="\n]\n"
)
