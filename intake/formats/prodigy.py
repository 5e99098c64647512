"""JSONL of Prodigy: `spans` with code point offsets. Prodigy keeps the keys of a span that it does not know."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from intake.formats.annotated_text import MAX_MARKS, AnnotatedText, Details, Identity, Mark, parse_record
from intake.formats.file_format import FileFormat, dump_json, split_lines
from registry.errors import InvalidInputError
from registry.tables import AnnotationStatus
from registry.text_types import EntityType, PersonName, Text


class _Span(Details):
    label: EntityType
    start: int = Field(ge=0)
    end: int = Field(ge=1)


class _Task(BaseModel):
    text: Text
    spans: list[_Span] = Field(default_factory=list, max_length=MAX_MARKS, fail_fast=True)
    relations: list[Any] = Field(default_factory=list)
    meta: Identity = Identity()
    answer: Literal["accept", "reject", "ignore"] = "accept"
    annotator: PersonName | None = Field(None, alias="_annotator_id")


def _read(record: str) -> AnnotatedText:
    task = parse_record(_Task, record)
    if task.answer == "ignore":
        raise InvalidInputError("Its annotator has ignored it")
    marks = tuple(_read_span(span, task) for span in task.spans)
    ignored = {"relations": len(task.relations)} if task.relations else {}
    return AnnotatedText(task.text, marks, task.meta.document_id, task.meta.filename, ignored)


def _read_span(span: _Span, task: _Task) -> Mark:
    """Return a span as an annotation, which a rejected task rejects."""
    return Mark(
        type=span.label,
        start=span.start,
        end=span.end,
        reviewer=span.reviewer or task.annotator,
        notes=span.notes,
        status=AnnotationStatus.REJECTED if task.answer == "reject" else span.status,
    )


def _write(document: AnnotatedText) -> str:
    spans = [
        {"start": mark.start, "end": mark.end, "label": mark.type, **mark.dump_details()} for mark in document.marks
    ]
    return dump_json({"text": document.text, "spans": spans, "meta": document.metadata, "answer": "accept"})


PRODIGY = FileFormat("application/jsonl", "jsonl", split_lines, _read, _write)
