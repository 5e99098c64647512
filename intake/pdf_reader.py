"""A program that reads the PDF on its standard input, so that a hostile file harms no other process.

`python -I pdf_reader.py MAX_BYTES MAX_PAGES MAX_CHARACTERS` limits its own memory and writes no files. It writes what
it has read to standard output, packed as .npz. For a PDF that it refuses it writes the reason and exits with REFUSED.
"""

import io
import resource
import sys
from dataclasses import dataclass

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from numpy.typing import NDArray

REFUSED = 3
_READABLE = {"\r": "", "\xa0": " ", "\x02": "-", "\x00": ""}  # PDFium ends a hyphenated line with \x02


class RefusedError(Exception):
    """The PDF cannot be read; the message says what to do."""


@dataclass(frozen=True)
class ReadPdf:
    """The text of a PDF, its pages, and the box of each character.

    `pages` (pages, 4): width and height in points of the displayed page, start and end of its text.

    `boxes` (characters, 5): page from 1, then left, top, right, bottom in points from the top left corner of the
    displayed page. The rows of characters without a box are zeros.
    """

    text: str
    pages: NDArray[np.float64]
    boxes: NDArray[np.float32]


def main() -> None:
    """Read within the given limits; the process dies if it exceeds its memory limit."""
    max_bytes, max_pages, max_characters = (int(argument) for argument in sys.argv[1:])
    for limit, most in ((resource.RLIMIT_AS, max_bytes), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    try:
        read = read_pdf(sys.stdin.buffer.read(), max_pages, max_characters)
    except RefusedError as error:
        sys.stdout.write(str(error))
        sys.exit(REFUSED)
    sys.stdout.buffer.write(pack(read))


def read_pdf(content: bytes, max_pages: int, max_characters: int) -> ReadPdf:
    """Read a PDF; raises RefusedError if it is encrypted or broken, has no text or too much."""
    texts, pages, boxes, characters = [], [], [], 0
    try:
        with pdfium.PdfDocument(content) as document:
            page_count = len(document)
            if page_count > max_pages:
                raise RefusedError(f"The PDF has {page_count} pages; up to {max_pages} are read: split it")
            for number in range(page_count):
                page = document[number]
                text, page_boxes = _read_page(page, number + 1)
                texts.append(text)
                boxes.append(page_boxes)
                pages.append((*page.get_size(), characters, characters + len(text)))
                characters += len(text)
                if characters > max_characters:
                    raise RefusedError(f"The PDF has more than {max_characters} characters: split it")
    except pdfium.PdfiumError as error:
        if error.err_code == pdfium_c.FPDF_ERR_PASSWORD:
            raise RefusedError("The PDF is encrypted: remove its password and upload it again") from error
        raise RefusedError("The PDF is broken and cannot be read: export it again from its source") from error
    text = "".join(texts)
    if not text.strip():
        raise RefusedError("The PDF has no text layer, only images: run OCR on it and upload the result")
    return ReadPdf(text, np.array(pages), np.concatenate(boxes))


def pack(read: ReadPdf) -> bytes:
    """Return the bytes that `unpack` reads."""
    buffer = io.BytesIO()
    np.savez(buffer, text=np.frombuffer(read.text.encode(), np.uint8), pages=read.pages, boxes=read.boxes)
    return buffer.getvalue()


def unpack(packed: bytes) -> ReadPdf:
    """Return what was packed; the bytes need not be trusted."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return ReadPdf(arrays["text"].tobytes().decode(), arrays["pages"], arrays["boxes"])


def _read_page(page: pdfium.PdfPage, number: int) -> tuple[str, NDArray[np.float32]]:
    """Return the text of a page, with a line end added, and a row of `ReadPdf.boxes` for each character."""
    text_page = page.get_textpage()
    characters, own = [], []
    for index in range(text_page.count_chars()):
        character = chr(pdfium_c.FPDFText_GetUnicode(text_page, index))
        readable = "\ufffd" if "\ud800" <= character <= "\udfff" else _READABLE.get(character, character)
        if readable:
            characters.append(readable)
            own.append(text_page.get_charbox(index, loose=True))
    boxes = np.zeros((len(characters) + 1, 5), dtype=np.float32)
    if own:
        edges = np.array(own)
        to_shown = _shown_from_page(page)
        corners = [np.column_stack([edges[:, pair], np.ones(len(edges))]) @ to_shown for pair in ([0, 1], [2, 3])]
        boxes[:-1, 0] = number
        boxes[:-1, 1:3] = np.minimum(*corners)
        boxes[:-1, 3:5] = np.maximum(*corners)
    return "".join(characters) + "\n", boxes


def _shown_from_page(page: pdfium.PdfPage) -> NDArray[np.float64]:
    """Return the affine map (3, 2) from page coordinates to points from the top left corner of the displayed page."""
    fine = 1000
    width, height = (round(side * fine) for side in page.get_size())
    shown = []
    for x, y in ((0, 0), (1000, 0), (0, 1000)):
        left, top = pdfium_c.c_int(), pdfium_c.c_int()
        pdfium_c.FPDF_PageToDevice(page, 0, 0, width, height, 0, x, y, left, top)
        shown.append((left.value / fine, top.value / fine))
    origin, along_x, along_y = np.array(shown)
    return np.array([(along_x - origin) / 1000, (along_y - origin) / 1000, origin])


if __name__ == "__main__":
    main()
