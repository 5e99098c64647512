"""The document store: original files and the boxes of their characters, in a folder or at any fsspec URL."""

import io

import fsspec
import numpy as np
from numpy.typing import NDArray

from registry.errors import UnavailableError
from registry.settings import Settings

FloatArray = NDArray[np.float32]


class DocumentStore:
    """Stores each document's `content` and, for a PDF, the `boxes` of its characters: see `intake.pdf_reader`."""

    def __init__(self, settings: Settings) -> None:
        self._files, root = fsspec.core.url_to_fs(settings.document_store_url)
        self._root = root.rstrip("/")

    def save(self, document_id: str, content: bytes, boxes: FloatArray | None) -> None:
        """Store a document's bytes and boxes (characters, 5), or neither; raises UnavailableError if writing fails."""
        try:
            self._write(f"{document_id}/content", content)
            if boxes is not None:
                buffer = io.BytesIO()
                np.save(buffer, boxes, allow_pickle=False)
                self._write(f"{document_id}/boxes.npy", buffer.getvalue())
        except OSError as error:
            self.delete(document_id)
            raise UnavailableError(
                f"The document store cannot be written ({error.strerror}): try again later"
            ) from error

    def load_content(self, document_id: str) -> bytes:
        """Return the uploaded bytes; raises FileNotFoundError."""
        content: bytes = self._files.cat_file(f"{self._root}/{document_id}/content")
        return content

    def load_boxes(self, document_id: str) -> FloatArray:
        """Return the boxes (characters, 5); raises FileNotFoundError for plain text."""
        content = self._files.cat_file(f"{self._root}/{document_id}/boxes.npy")
        boxes: FloatArray = np.load(io.BytesIO(content), allow_pickle=False)
        return boxes

    def delete(self, document_id: str) -> None:
        """Delete everything stored of a document; raises UnavailableError if that fails."""
        folder = f"{self._root}/{document_id}"
        try:
            if self._files.exists(folder):
                self._files.rm(folder, recursive=True)
        except OSError as error:
            raise UnavailableError(f"The folder {document_id} of the document store remains: delete it") from error

    def _write(self, path: str, content: bytes) -> None:
        self._files.makedirs(f"{self._root}/{path.rsplit('/', 1)[0]}", exist_ok=True)
        self._files.pipe_file(f"{self._root}/{path}", content)
