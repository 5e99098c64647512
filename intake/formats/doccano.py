"""JSONL of doccano: `label` has the spans of sequence labelling, `entities` those of a project with relations.

Offsets count code points. Keys that doccano does not know become the document's metadata there, and come back with its
export: `annotation_details` has the reviewers, notes and statuses.
"""

from typing import Any

from pydantic import BaseModel, Field

from intake.formats.annotated_text import MAX_MARKS, AnnotatedText, Identity, Mark, parse_record
from intake.formats.file_format import FileFormat, dump_json, split_lines
from registry.text_types import EntityType, Text


class _Entity(BaseModel):
    label: EntityType
    start_offset: int = Field(ge=0)
    end_offset: int = Field(ge=1)


class _Row(Identity):
    text: Text
    label: list[tuple[int, int, EntityType]] = Field(default_factory=list, max_length=MAX_MARKS, fail_fast=True)
    entities: list[_Entity] = Field(default_factory=list, max_length=MAX_MARKS, fail_fast=True)
    relations: list[Any] = Field(default_factory=list)
    annotation_details: list[Mark] = Field(default_factory=list, max_length=MAX_MARKS, fail_fast=True)


def _read(record: str) -> AnnotatedText:
    row = parse_record(_Row, record)
    spans = [(start, end, name) for start, end, name in row.label]
    spans += [(entity.start_offset, entity.end_offset, entity.label) for entity in row.entities]
    details = {(mark.start, mark.end, mark.type): mark for mark in row.annotation_details}
    marks = [details.get(span) or Mark(start=span[0], end=span[1], type=span[2]) for span in spans]
    ignored = {"relations": len(row.relations)} if row.relations else {}
    return AnnotatedText(row.text, tuple(marks), row.document_id, row.filename, ignored)


def _write(document: AnnotatedText) -> str:
    row: dict[str, Any] = {"text": document.text, **document.metadata}
    row["label"] = [(mark.start, mark.end, mark.type) for mark in document.marks]
    if details := [mark for mark in document.marks if mark.dump_details()]:
        row["annotation_details"] = [mark.model_dump(mode="json", exclude_defaults=True) for mark in details]
    return dump_json(row)


DOCCANO = FileFormat("application/jsonl", "jsonl", split_lines, _read, _write)
