"""Label Studio's JSON export, read as annotations."""

from typing import Annotated

from pydantic import BaseModel, Field

from registry.annotations import check_length
from registry.errors import InvalidInputError
from registry.settings import MOST_ANNOTATIONS
from registry.tables import AnnotationBase
from registry.text_types import EntityType, PersonName, Value


class LabelStudioValue(BaseModel):
    """A labelled span; offsets count UTF-16 code units, as in JavaScript."""

    start: int | None = Field(None, ge=0)
    end: int | None = None
    text: Value | None = None
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

    @property
    def spans(self) -> list[LabelStudioValue]:
        """Return the labelled spans."""
        return [result.value for result in self.result if result.type == "labels"]


class LabelStudioTask(BaseModel):
    """One task of an export."""

    annotations: list[LabelStudioAnnotation] = Field(max_length=100, fail_fast=True)


LabelStudioExport = Annotated[list[LabelStudioTask], Field(max_length=100, fail_fast=True)]


def get_latest_annotation(export: LabelStudioExport) -> LabelStudioAnnotation:
    """Return the latest finished annotation of the only task of the export; raises InvalidInputError."""
    if len(export) != 1:
        raise InvalidInputError(f"The export has {len(export)} tasks: send the one task of this document")
    finished = [annotation for annotation in export[0].annotations if not annotation.was_cancelled]
    if not finished:
        raise InvalidInputError("The task has no finished annotation")
    return max(finished, key=lambda annotation: annotation.updated_at)


def count_labels(annotation: LabelStudioAnnotation) -> int:
    """Return the number of annotations that `read_labels` returns; values for very many would fill the memory."""
    return sum(len(value.labels) for value in annotation.spans)


def read_labels(annotation: LabelStudioAnnotation, text: str, reviewer: str) -> list[AnnotationBase]:
    """Return an annotation for each label; raises InvalidInputError for a span that does not fit the text."""
    person = annotation.completed_by.email if isinstance(annotation.completed_by, LabelStudioUser) else None
    offsets = _utf16_offsets(text)
    found: list[AnnotationBase] = []
    for value in annotation.spans:
        if value.start is None or value.end is None or not value.start < value.end <= len(offsets) - 1:
            raise InvalidInputError(f"A result from {value.start} to {value.end} is outside the document's text")
        start, end = offsets[value.start], offsets[value.end]
        check_length(start, end)
        marked = value.text or text[start:end]
        found += [
            AnnotationBase(type=label, value=marked, start=start, end=end, reviewer=person or reviewer)
            for label in value.labels
        ]
    return found


def _utf16_offsets(text: str) -> list[int]:
    """Return the character offset of each offset in UTF-16 code units, up to and including the end of the text."""
    offsets = [index for index, character in enumerate(text) for _ in range(2 if character > "\uffff" else 1)]
    return [*offsets, len(text)]
