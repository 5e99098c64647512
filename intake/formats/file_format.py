"""How a file of many documents is split into records of one document each, and put together again."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pydantic_core import from_json, to_json

from intake.formats.annotated_text import AnnotatedText
from registry.errors import InvalidInputError


@dataclass(frozen=True)
class FileFormat:
    """A format: a file is `opening`, the records with `separator` between them, and `closing`.

    `split` and `read` raise InvalidInputError. With `holds_details`, the format keeps reviewers, notes and statuses.
    """

    media_type: str
    suffix: str
    split: Callable[[str], Iterator[str]]
    read: Callable[[str], AnnotatedText]
    write: Callable[[AnnotatedText], str]
    opening: str = ""
    separator: str = "\n"
    closing: str = "\n"
    holds_details: bool = True

    def join(self, records: Iterable[str]) -> str:
        """Return a file of these records."""
        return self.opening + self.separator.join(records) + self.closing


def decode_file(content: bytes) -> str:
    """Return a file's text; raises InvalidInputError."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"The file is not UTF-8 at byte {error.start}: save it as UTF-8") from error


def split_lines(content: str) -> Iterator[str]:
    """Yield the lines that are not blank; only a line feed ends one, since JSON may hold U+2028."""
    return (line for line in content.split("\n") if line.strip())


def split_array(content: str) -> Iterator[str]:
    """Yield the items of a JSON array, as JSON."""
    items = parse_json(content)
    if not isinstance(items, list):
        raise InvalidInputError("The file is not a JSON array of documents")
    return (dump_json(item) for item in items)


def parse_json(content: str) -> object:
    """Return JSON as Python objects; raises InvalidInputError."""
    try:
        parsed: object = from_json(content)
    except ValueError as error:
        raise InvalidInputError(f"The file is not JSON: {error}") from error
    return parsed


def dump_json(value: object) -> str:
    """Return JSON in one line; characters beyond ASCII remain as they are."""
    return to_json(value).decode()
