"""A document with its annotations, as a file of any format holds it, and how records of JSON are checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from registry.errors import InvalidInputError
from registry.tables import AnnotationStatus
from registry.text_types import EntityType, Note, PersonName, Text

MAX_MARKS = 100_000  # of a record; what one document may have is a setting
_SHOWN_MISTAKES = 3

Record = TypeVar("Record", bound=BaseModel)


class Details(BaseModel):
    """What is known of an annotation beside its span."""

    model_config = ConfigDict(frozen=True)

    reviewer: PersonName | None = None
    notes: Note | None = None
    status: AnnotationStatus = AnnotationStatus.APPROVED

    def dump_details(self) -> dict[str, Any]:
        """Return what differs from the defaults, as JSON."""
        return self.model_dump(mode="json", include=set(Details.model_fields), exclude_defaults=True)


class Mark(Details):
    """An annotation without its value; offsets are Python string indices into the text, `end` exclusive."""

    type: EntityType
    start: int = Field(ge=0)
    end: int = Field(ge=1)


@dataclass(frozen=True)
class AnnotatedText:
    """A text with its annotations.

    `document_id` is of the installation that wrote the file. `ignored` counts what a record holds beside spans, by what
    it is.
    """

    text: str
    marks: tuple[Mark, ...]
    document_id: str | None = None
    filename: str | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        """Return id and filename, as far as they are known."""
        return {
            name: value
            for name, value in (("document_id", self.document_id), ("filename", self.filename))
            if value is not None
        }


def _write_number(value: object) -> object:
    return str(value) if isinstance(value, int) else value


class Identity(BaseModel):
    """Where a document was exported from; files of other programs have none."""

    document_id: Annotated[Text, BeforeValidator(_write_number)] | None = None
    filename: Text | None = None


def parse_record(model: type[Record], record: str) -> Record:
    """Return a record of JSON as `model`; raises InvalidInputError with the first mistakes."""
    try:
        return model.model_validate_json(record)
    except ValidationError as error:
        raise InvalidInputError(describe_mistakes(error)) from error


def describe_mistakes(error: ValidationError) -> str:
    """Return the first mistakes of a record in one line."""
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{'.'.join(str(part)[:50] for part in each['loc'])}: {each['msg']}" if each["loc"] else each["msg"]
        for each in mistakes[:_SHOWN_MISTAKES]
    ]
    more = len(mistakes) - len(shown)
    return "; ".join([*shown, f"and {more} more"] if more else shown)
