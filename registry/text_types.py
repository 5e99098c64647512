"""Strings that clients send, within the limits of what every database stores."""

from typing import Annotated

from pydantic import AfterValidator, Field

from registry.tables import MAX_NAME, MAX_VALUE

_PRINTABLE = "Printable characters without spaces at the start and at the end"


def _check_storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("Leave out the NUL character, which PostgreSQL does not store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Leave out {text[error.start]!r}, half of a surrogate pair, which no database stores"
        ) from error
    return text


def _check_printable(name: str) -> str:
    if not name.isprintable():
        character = next(each for each in name if not each.isprintable())
        raise ValueError(f"Leave out {character!r}, which is not printable")
    if name != name.strip():
        raise ValueError("Leave out the spaces at the start and at the end")
    return name


Text = Annotated[str, AfterValidator(_check_storable)]
EntityType = Annotated[
    Text, Field(min_length=1, max_length=100, description=_PRINTABLE), AfterValidator(_check_printable)
]
Value = Annotated[Text, Field(max_length=MAX_VALUE)]
PersonName = Annotated[Text, Field(max_length=MAX_NAME, description=_PRINTABLE), AfterValidator(_check_printable)]
Note = Annotated[Text, Field(max_length=10_000)]
