"""Strings that clients send, within the limits of what every database stores."""

from typing import Annotated

from pydantic import AfterValidator, Field

from registry.tables import MAX_NAME


def _check_storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("Leave out the NUL character, which PostgreSQL does not store")
    return text


Text = Annotated[str, AfterValidator(_check_storable)]
EntityType = Annotated[Text, Field(min_length=1, max_length=100)]
PersonName = Annotated[Text, Field(max_length=MAX_NAME)]
Note = Annotated[Text, Field(max_length=10_000)]
