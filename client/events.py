"""Server-sent events."""

from collections.abc import Iterable, Iterator


def read_events(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield name and data of each event; the API's have one line of data, and comments between them."""
    name = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, value
