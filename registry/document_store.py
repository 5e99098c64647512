"""The document store: original files, their pages and the boxes of their characters, in a folder or an S3 bucket."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec
import numpy as np
from fsspec.asyn import AsyncFileSystem, sync
from numpy.typing import NDArray

from registry.errors import UnavailableError, build_outage_error
from registry.neighbour import Neighbour
from registry.settings import Settings

FloatArray = NDArray[np.float32]
PageArray = NDArray[np.float64]

_OUTAGES: tuple[type[Exception], ...] = (TimeoutError,)  # a server does not answer
with suppress(ImportError):  # s3fs is an extra; it passes on errors of botocore
    from botocore.exceptions import BotoCoreError

    _OUTAGES += (BotoCoreError,)
_FAILURES: tuple[type[Exception], ...] = (OSError, *_OUTAGES)
_SECONDS = 10.0
_OPTIONS: dict[str, dict[str, Any]] = {
    "file": {"auto_mkdir": True},
    "s3": {
        "use_listings_cache": False,  # other processes write, too
        "config_kwargs": {"retries": {"total_max_attempts": 1}},  # s3fs tries again
    },
}

_logger = logging.getLogger(__name__)


class DocumentStore:
    """Stores each document's `content` and, for a PDF, its `pages` and the `boxes` of its characters: see `ReadPdf`.

    Each method raises UnavailableError if the store does not work: after ten seconds if an S3 server does not answer,
    and at once in the five seconds after that. A missing bucket is never created.
    """

    def __init__(self, settings: Settings) -> None:
        protocol = fsspec.utils.get_protocol(settings.document_store_url)
        self._files, root = fsspec.core.url_to_fs(settings.document_store_url, **_OPTIONS.get(protocol, {}))
        self._root = root.rstrip("/")
        self._server = Neighbour("The document store")

    def save(self, document_id: str, content: bytes, boxes: FloatArray | None, pages: PageArray | None = None) -> None:
        """Store a document's bytes, boxes (characters, 5) and pages (pages, 4), or nothing of it."""
        try:
            self._write(f"{document_id}/content", content)
            if boxes is not None:
                self._write(f"{document_id}/boxes.npy", _pack(boxes))
            if pages is not None:
                self.save_pages(document_id, pages)
        except UnavailableError:
            with suppress(UnavailableError):  # logged
                self.delete(document_id)
            raise

    def load_content(self, document_id: str) -> bytes:
        """Return the uploaded bytes."""
        return self._read(f"{document_id}/content")

    def load_boxes(self, document_id: str) -> FloatArray:
        """Return the boxes (characters, 5) of a PDF."""
        boxes: FloatArray = _unpack(self._read(f"{document_id}/boxes.npy"))
        return boxes

    def save_pages(self, document_id: str, pages: PageArray) -> None:
        """Store the pages (pages, 4) of a PDF."""
        self._write(f"{document_id}/pages.npy", _pack(pages))

    def find_pages(self, document_id: str) -> PageArray | None:
        """Return the pages (pages, 4) of a PDF; None if it was uploaded to an earlier release."""
        try:
            pages: PageArray = _unpack(self._fetch(f"{document_id}/pages.npy"))
        except FileNotFoundError:
            return None
        return pages

    def delete(self, document_id: str) -> None:
        """Delete everything stored of a document."""
        folder = f"{self._root}/{document_id}"
        try:
            with suppress(FileNotFoundError), self._access():
                if self._call("exists", folder):
                    self._call("rm", folder, recursive=True)
        except UnavailableError as error:
            _logger.warning("The folder %s of the document store may remain: delete it", document_id)
            raise UnavailableError(f"{error}. The folder {document_id} may remain in the store: delete it") from error

    def check_alive(self) -> None:
        """Write a small file."""
        self._write("status", b"The document store can be written.\n")

    def _read(self, path: str) -> bytes:
        try:
            return self._fetch(path)
        except FileNotFoundError as error:
            raise UnavailableError(f"The document store has lost {path}: restore it, or delete the document") from error

    def _fetch(self, path: str) -> bytes:
        with self._access():
            content: bytes = self._call("cat_file", f"{self._root}/{path}")
            return content

    def _write(self, path: str, content: bytes) -> None:
        try:
            with self._access():
                self._call("pipe_file", f"{self._root}/{path}", content)
        except FileNotFoundError as error:
            raise UnavailableError("The document store's bucket does not exist: create it") from error

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system, with a time limit if a server is asked: s3fs's own miss some waits."""
        if not isinstance(self._files, AsyncFileSystem):
            return getattr(self._files, method)(*arguments, **options)
        coroutine = getattr(self._files, f"_{method}")
        return sync(self._files.loop, coroutine, *arguments, timeout=_SECONDS, **options)

    @contextmanager
    def _access(self) -> Iterator[None]:
        """Raise UnavailableError for what file systems raise, except FileNotFoundError."""
        with self._server.ask():
            try:
                yield
            except FileNotFoundError:
                raise
            except _FAILURES as error:
                _logger.warning("The document store fails", exc_info=True)
                if isinstance(error, _OUTAGES):
                    raise build_outage_error("The document store") from error
                reason = getattr(error, "strerror", None) or error
                raise UnavailableError(f"The document store fails ({reason}): try again later") from error


def _pack(array: FloatArray | PageArray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _unpack(content: bytes) -> Any:
    return np.load(io.BytesIO(content), allow_pickle=False)
