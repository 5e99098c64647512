"""Reading an upload: its text, its pages, and the box of each character."""

import codecs
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intake import pdf_reader
from registry.errors import InvalidInputError, UnsupportedFileError
from registry.settings import Settings


@dataclass(frozen=True)
class ReadDocument:
    """The text of an upload; for a PDF `pages` and `boxes` as in `ReadPdf`, else None."""

    text: str
    media_type: str
    page_count: int
    pages: NDArray[np.float64] | None
    boxes: NDArray[np.float32] | None


def read_document(content: bytes, settings: Settings) -> ReadDocument:
    """Read a PDF or UTF-8 text.

    Raises UnsupportedFileError for anything else, InvalidInputError for a PDF that is encrypted or broken, has no text
    or exceeds a limit of the settings, and for text that is empty or too long.
    """
    if _is_pdf(content):
        read = read_pdf(content, settings)
        return ReadDocument(read.text, "application/pdf", len(read.pages), read.pages, read.boxes)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnsupportedFileError("The file is neither a PDF nor plain text in UTF-8") from error
    if "\0" in text:
        raise UnsupportedFileError("The file is neither a PDF nor plain text in UTF-8")
    if not text.strip():
        raise InvalidInputError("The file is empty: there is no text to read")
    if len(text) > settings.max_characters:
        raise InvalidInputError(f"The file has more than {settings.max_characters} characters: split it")
    return ReadDocument(text, "text/plain", 1, None, None)


def encode_text(text: str) -> bytes:
    """Return the bytes of a file that `read_document` reads as this text.

    A byte order mark, which reading takes away, goes before a text that begins with one or as a PDF does.
    """
    content = text.encode()
    return codecs.BOM_UTF8 + content if content.startswith(codecs.BOM_UTF8) or _is_pdf(content) else content


def read_pdf(content: bytes, settings: Settings) -> pdf_reader.ReadPdf:
    """Read a PDF in a separate process without the environment, which contains secrets; raises InvalidInputError."""
    limits = (settings.pdf_memory_bytes, settings.max_pages, settings.max_characters)
    command = [sys.executable, "-I", str(Path(pdf_reader.__file__)), *map(str, limits)]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            input=content,
            capture_output=True,
            timeout=settings.pdf_seconds,
            check=False,
            env={"OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidInputError(f"The PDF was not read within {settings.pdf_seconds:g} s: export it again") from error
    if done.returncode == pdf_reader.REFUSED:
        raise InvalidInputError(done.stdout.decode())
    if done.returncode:
        raise InvalidInputError("The PDF cannot be read within the memory limit: export it again from its source")
    return pdf_reader.unpack(done.stdout)


def _is_pdf(content: bytes) -> bool:
    return content[:1024].lstrip().startswith(b"%PDF-")
