"""The original files and the places of their characters, in a folder or any fsspec URL."""

import io

import fsspec
import numpy as np
from numpy.typing import NDArray

from registry.errors import UnavailableError
from registry.settings import Settings

FloatArray = NDArray[np.float32]


class DocumentStore:
    """Keeps for each document its `content` and, for PDFs, the `boxes` of its characters."""

    def __init__(self, settings: Settings) -> None:
        self._files, root = fsspec.core.url_to_fs(settings.document_store_url)
        self._root = root.rstrip("/")

    def save(self, document_id: str, content: bytes, boxes: FloatArray | None) -> None:
        """Store a document's bytes and its characters' boxes, shape (characters, 4), or neither.

        Raises UnavailableError where they cannot be written.
        """
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
        """Return the bytes that were uploaded; raises FileNotFoundError."""
        content: bytes = self._files.cat_file(f"{self._root}/{document_id}/content")
        return content

    def load_boxes(self, document_id: str) -> FloatArray:
        """Return each character's box, shape (characters, 4); raises FileNotFoundError for plain text."""
        content = self._files.cat_file(f"{self._root}/{document_id}/boxes.npy")
        boxes: FloatArray = np.load(io.BytesIO(content), allow_pickle=False)
        return boxes

    def delete(self, document_id: str) -> None:
        """Remove what is stored of a document."""
        if self._files.exists(f"{self._root}/{document_id}"):
            self._files.rm(f"{self._root}/{document_id}", recursive=True)

    def _write(self, path: str, content: bytes) -> None:
        self._files.makedirs(f"{self._root}/{path.rsplit('/', 1)[0]}", exist_ok=True)
        self._files.pipe_file(f"{self._root}/{path}", content)
