"""Images of the pages of PDFs, drawn by `page_drawer` in a process for each document, and kept in memory."""

import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from intake import page_drawer
from intake.reading import read_pdf
from registry.document_store import DocumentStore, PageArray
from registry.errors import InvalidInputError
from registry.settings import Settings

_AT_ONCE = 4  # a page and the next ones: the process takes 90 ms to start, and 25 ms for each page
_MAX_BYTES = 100_000_000  # about 400 pages of text, 1,200 pixels wide

_Key = tuple[str, int, int]  # document, number of the page, width


class PageImages:
    """Draws pages, and keeps the images that were asked for last; those of deleted documents are to be forgotten."""

    def __init__(self, settings: Settings, store: DocumentStore, max_bytes: int = _MAX_BYTES) -> None:
        self._settings, self._store, self._max_bytes = settings, store, max_bytes
        self._images: OrderedDict[_Key, bytes] = OrderedDict()
        self._changing = threading.Lock()
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def __contains__(self, key: _Key) -> bool:
        """Tell whether a page is drawn already."""
        return key in self._images

    def get(self, document_id: str, number: int, width: int, page_count: int) -> bytes:
        """Return a page in JPEG; if it must be drawn, the next pages are drawn, too.

        One thread at a time draws pages of a document: the others then find theirs drawn.

        Raises InvalidInputError if the page is broken or exceeds a limit of the settings.
        """
        with self._get_lock(document_id):
            image = self._find((document_id, number, width))
            if image is None:
                following = range(number + 1, min(number + _AT_ONCE, page_count + 1))
                missing = [each for each in following if (document_id, each, width) not in self]
                content = self._store.load_content(document_id)
                image, *others = draw_pages(content, [number, *missing], width, self._settings)
                for each, drawn in zip([number, *missing], [image, *others], strict=False):
                    self._add((document_id, each, width), drawn)
            return image

    def read_pages(self, document_id: str) -> PageArray:
        """Return the pages of a PDF, which are read and stored if it was uploaded to an earlier release.

        One thread at a time reads a document: the others then find what it stored. Raises InvalidInputError.
        """
        with self._get_lock(document_id):
            pages = self._store.find_pages(document_id)
            if pages is None:
                pages = read_pdf(self._store.load_content(document_id), self._settings).pages
                self._store.save_pages(document_id, pages)
            return pages

    def forget(self, document_id: str) -> None:
        """Delete the images of a document."""
        with self._changing:
            for key in [key for key in self._images if key[0] == document_id]:
                del self._images[key]

    def _get_lock(self, document_id: str) -> threading.Lock:
        with self._changing:
            return self._locks.setdefault(document_id, threading.Lock())

    def _find(self, key: _Key) -> bytes | None:
        with self._changing:
            if key in self._images:
                self._images.move_to_end(key)
            return self._images.get(key)

    def _add(self, key: _Key, image: bytes) -> None:
        with self._changing:
            self._images[key] = image
            while sum(map(len, self._images.values())) > self._max_bytes:
                self._images.popitem(last=False)


def draw_pages(content: bytes, numbers: Sequence[int], width: int, settings: Settings) -> list[bytes]:
    """Draw the first of these pages of a PDF and, of the others, those that take little time; returns JPEG images.

    Raises InvalidInputError if the first is broken or exceeds a limit of the settings.
    """
    arguments = (settings.pdf_memory_bytes, width, *numbers)
    command = [sys.executable, "-I", str(Path(page_drawer.__file__)), *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603
            command, input=content, capture_output=True, timeout=settings.pdf_seconds, check=False, env={}
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidInputError(f"Page {numbers[0]} was not drawn within {settings.pdf_seconds:g} s") from error
    if not (images := list(_split(done.stdout))):
        raise InvalidInputError(f"Page {numbers[0]} cannot be drawn: it is broken, or needs too much memory")
    return images


def _split(output: bytes) -> Iterator[bytes]:
    """Yield the complete images of the program's output."""
    while len(output) >= 4 + (size := int.from_bytes(output[:4], "big")) > 4:
        yield output[4 : 4 + size]
        output = output[4 + size :]
