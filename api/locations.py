"""Where spans of a document are on its pages."""

from collections.abc import Callable
from functools import partial

from api.services import Services
from intake.location import Location, locate
from registry.tables import Document

Locator = Callable[[int, int], list[Location]]


def build_locator(document: Document, services: Services) -> Locator:
    """Return what locates spans of a document by start and end, and finds nothing in plain text; loads its boxes."""
    if document.media_type != "application/pdf":
        return lambda start, end: []
    return partial(locate, services.store.load_boxes(document.id))
