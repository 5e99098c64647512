"""Label Studio's JSON export, read as annotations."""

from typing import Annotated

from pydantic import BaseModel, Field

from registry.errors import InvalidInputError
from registry.settings import MOST_ANNOTATIONS
from registry.tables import AnnotationBase
from registry.text_types import EntityType, PersonName, Text


class LabelStudioValue(BaseModel):
    """A labelled span; offsets count UTF-16 code units, as in JavaScript."""

    start: int | None = Field(None, ge=0)
    end: int | None = None
    text: Text | None = None
    labels: list[EntityType] = Field(default_factory=list, max_length=100, fail_fast=True)


class LabelStudioResult(BaseModel):
    """One result of an annotator; only results of type `labels` are spans of text."""

    type: str
    value: LabelStudioValue


class LabelStudioUser(BaseModel):
    """The author of an annotation."""

    email: PersonName | None = None


class LabelStudioAnnotation(BaseModel):
    """The annotation of a task by one annotator."""

    result: list[LabelStudioResult] = Field(max_length=MOST_ANNOTATIONS, fail_fast=True)
    was_cancelled: bool = False
    updated_at: str = ""
    completed_by: LabelStudioUser | int | None = None


class LabelStudioTask(BaseModel):
    """One task of an export."""

    annotations: list[LabelStudioAnnotation] = Field(max_length=100, fail_fast=True)


LabelStudioExport = Annotated[list[LabelStudioTask], Field(max_length=100, fail_fast=True)]


def read_label_studio(export: LabelStudioExport, text: str, reviewer: str) -> list[AnnotationBase]:
    """Return the latest annotations of the only task of the export; raises InvalidInputError."""
    if len(export) != 1:
        raise InvalidInputError(f"The export has {len(export)} tasks: send the one task of this document")
    finished = [annotation for annotation in export[0].annotations if not annotation.was_cancelled]
    if not finished:
        raise InvalidInputError("The task has no finished annotation")
    latest = max(finished, key=lambda annotation: annotation.updated_at)
    person = latest.completed_by.email if isinstance(latest.completed_by, LabelStudioUser) else None
    offsets = _utf16_offsets(text)
    found: list[AnnotationBase] = []
    for result in latest.result:
        if result.type != "labels":
            continue
        value = result.value
        if value.start is None or value.end is None or not value.start < value.end <= len(offsets) - 1:
            raise InvalidInputError(f"A result from {value.start} to {value.end} is outside the document's text")
        start, end = offsets[value.start], offsets[value.end]
        found += [
            AnnotationBase(
                type=label, value=value.text or text[start:end], start=start, end=end, reviewer=person or reviewer
            )
            for label in value.labels
        ]
    return found


def _utf16_offsets(text: str) -> list[int]:
    """Return the character offset of each offset in UTF-16 code units, up to and including the end of the text."""
    offsets = [index for index, character in enumerate(text) for _ in range(2 if character > "\uffff" else 1)]
    return [*offsets, len(text)]
