"""Label Studio's JSON export, read as annotations."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from registry.annotations import check_length
from registry.errors import InvalidInputError
from registry.settings import MOST_ANNOTATIONS
from registry.tables import AnnotationBase
from registry.text_types import EntityType, PersonName


class LabelStudioValue(BaseModel):
    """A labelled span; offsets count code points, as Python does.

    Label Studio's `text` is not the text there: line breaks are escaped, and blanks collapsed.
    """

    start: int | None = Field(None, ge=0)
    end: int | None = None
    labels: list[EntityType] = Field(default_factory=list, max_length=100, fail_fast=True)


class LabelStudioResult(BaseModel):
    """One result of an annotator; only results of type `labels` are spans of text."""

    type: str = ""
    to_name: str = ""
    value: LabelStudioValue = Field(default_factory=LabelStudioValue)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_others(cls, result: Any) -> Any:
        """Keep nothing of a relation, a choice, or the like, whose values have other forms."""
        return result if not isinstance(result, dict) or result.get("type") == "labels" else {}


class LabelStudioUser(BaseModel):
    """The author of an annotation."""

    email: PersonName | None = None


class LabelStudioAnnotation(BaseModel):
    """The annotation of a task by one annotator."""

    result: list[LabelStudioResult] = Field(max_length=MOST_ANNOTATIONS, fail_fast=True)
    was_cancelled: bool = False
    updated_at: AwareDatetime | None = None
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
    """Return the latest finished annotation of the only task of the export; raises InvalidInputError.

    Of several, each has to say when it was changed: `updated_at`.
    """
    if len(export) != 1:
        raise InvalidInputError(f"The export has {len(export)} tasks: send the one task of this document")
    finished = [annotation for annotation in export[0].annotations if not annotation.was_cancelled]
    if len(finished) == 1:
        return finished[0]
    if not finished:
        raise InvalidInputError("The task has no finished annotation")
    by_time = {annotation.updated_at: annotation for annotation in finished if annotation.updated_at}
    if len(by_time) != len(finished):
        raise InvalidInputError(
            f"The task has {len(finished)} finished annotations, and the latest counts: give each its own `updated_at`,"
            " or send only one annotation"
        )
    return by_time[max(by_time)]


def count_labels(annotation: LabelStudioAnnotation) -> int:
    """Return the number of annotations that `read_labels` returns; values for very many would fill the memory."""
    return sum(len(value.labels) for value in annotation.spans)


def read_labels(annotation: LabelStudioAnnotation, text: str, reviewer: str) -> list[AnnotationBase]:
    """Return an annotation for each label; raises InvalidInputError for a span that does not fit the text.

    A span that was marked twice with a label is one annotation.
    """
    person = annotation.completed_by.email if isinstance(annotation.completed_by, LabelStudioUser) else None
    found = dict[tuple[str, int, int], AnnotationBase]()
    for value in annotation.spans:
        start, end = value.start, value.end
        if start is None or end is None or not start < end <= len(text):
            raise InvalidInputError(f"A result from {start} to {end} is outside the document's text")
        check_length(start, end)
        for label in value.labels:
            found[label, start, end] = AnnotationBase(
                type=label, value=text[start:end], start=start, end=end, reviewer=person or reviewer
            )
    return list(found.values())
