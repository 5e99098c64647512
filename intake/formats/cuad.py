"""JSON of CUAD, which is that of SQuAD 2: each paragraph is a document, each question asks for the spans of one type.

`answer_start` counts code points. The type is what follows `__` in the id of a question, as in CUAD, else the question.
Answers have the keys `reviewer`, `notes` and `status` beside those of SQuAD.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from intake.formats.annotated_text import (
    MAX_MARKS,
    AnnotatedText,
    Details,
    Identity,
    Mark,
    describe_mistakes,
    parse_record,
)
from intake.formats.file_format import FileFormat, dump_json, parse_json
from registry.errors import InvalidInputError, WrongValueError
from registry.text_types import EntityType, Text, Value

_TYPE: TypeAdapter[str] = TypeAdapter(EntityType)
_MAX_TITLE = 255  # characters; each paragraph gets a copy


class _Answer(Details):
    text: Annotated[Value, Field(min_length=1)]
    answer_start: int = Field(ge=0)


class _Question(BaseModel):
    id: Text = ""
    question: Text
    answers: list[_Answer] = Field(default_factory=list, max_length=MAX_MARKS, fail_fast=True)

    @property
    def type(self) -> str:
        is_in_id = "__" in self.id and not self.id.endswith(f"__{self.question}")
        try:
            return _TYPE.validate_python(self.id.rpartition("__")[2] if is_in_id else self.question)
        except ValidationError as error:
            raise InvalidInputError(
                f"The question {self.question[:100]!r} names no type: {describe_mistakes(error)}"
            ) from error


class _Paragraph(Identity):
    context: Text
    qas: list[_Question] = Field(default_factory=list, max_length=MAX_MARKS, fail_fast=True)


class _Entry(BaseModel):
    title: Text | None = None
    paragraphs: Annotated[list[_Paragraph], Field(min_length=1, max_length=1)]


def _split(content: str) -> Iterator[str]:
    """Yield an entry for each paragraph."""
    file = parse_json(content)
    entries = file.get("data") if isinstance(file, dict) else None
    if not isinstance(entries, list):
        raise InvalidInputError("The file is not a JSON object with a list `data`")
    for entry in entries:
        paragraphs = entry.get("paragraphs") if isinstance(entry, dict) else None
        if isinstance(paragraphs, list) and len(paragraphs) > 1:
            title = str(entry.get("title") or "")[:_MAX_TITLE]
            yield from (dump_json({"title": title, "paragraphs": [paragraph]}) for paragraph in paragraphs)
        else:
            yield dump_json(entry)


def _read(record: str) -> AnnotatedText:
    entry = parse_record(_Entry, record)
    (paragraph,) = entry.paragraphs
    marks = tuple(
        _read_answer(answer, question.type, paragraph.context)
        for question in paragraph.qas
        for answer in question.answers
    )
    return AnnotatedText(paragraph.context, marks, paragraph.document_id, paragraph.filename or entry.title or None)


def _read_answer(answer: _Answer, type_name: str, context: str) -> Mark:
    start, end = answer.answer_start, answer.answer_start + len(answer.text)
    if context[start:end] != answer.text:
        raise WrongValueError(f"The answer {answer.text[:200]!r} is not the text at {start}", context[start:end])
    return Mark(type=type_name, start=start, end=end, **answer.model_dump(include=set(Details.model_fields)))


def _write(document: AnnotatedText) -> str:
    title = document.filename or document.document_id or ""
    answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for mark in document.marks:
        text = document.text[mark.start : mark.end]
        answers[mark.type].append({"text": text, "answer_start": mark.start, **mark.dump_details()})
    questions = [
        {"id": f"{title}__{name}", "question": name, "answers": found, "is_impossible": False}
        for name, found in answers.items()
    ]
    return dump_json(
        {"title": title, "paragraphs": [{"context": document.text, "qas": questions, **document.metadata}]}
    )


CUAD = FileFormat(
    "application/json", "json", _split, _read, _write,
    opening='{"version": "2.0", "data": [\n', separator=",\n", closing="\n]}\n",
)  # fmt: skip
