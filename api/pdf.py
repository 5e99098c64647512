"""Reading an upload: its text, its pages, and where each character stands on its page."""

import threading
from dataclasses import dataclass

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from numpy.typing import NDArray

from registry.errors import InvalidInputError, UnsupportedFileError

_PDFIUM = threading.Lock()  # PDFium is not thread-safe
_READABLE = {"\r": "", "\xa0": " ", "\x02": "-", "\x00": ""}  # PDFium ends a hyphenated line with \x02


@dataclass(frozen=True)
class ReadDocument:
    """An upload's text; for PDFs `boxes` (characters, 5): page from 1, left, top, right, bottom in points.

    The boxes' origin is the top left corner of the page as it is shown. Characters without a place are all zeros.
    """

    text: str
    media_type: str
    page_count: int
    boxes: NDArray[np.float32] | None


def read_document(content: bytes) -> ReadDocument:
    """Read a PDF or UTF-8 text.

    Raises UnsupportedFileError for anything else, InvalidInputError for a PDF that is encrypted, broken or has no
    text, and for text that is empty.
    """
    if content[:1024].lstrip().startswith(b"%PDF-"):
        with _PDFIUM:
            return _read_pdf(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnsupportedFileError("The file is neither a PDF nor plain text in UTF-8") from error
    if "\0" in text:
        raise UnsupportedFileError("The file is neither a PDF nor plain text in UTF-8")
    if not text.strip():
        raise InvalidInputError("The file is empty: there is no text to read")
    return ReadDocument(text, "text/plain", 1, None)


def _read_pdf(content: bytes) -> ReadDocument:
    texts, boxes = [], []
    try:
        with pdfium.PdfDocument(content) as document:
            page_count = len(document)
            for number in range(page_count):
                text, page_boxes = _read_page(document[number], number + 1)
                texts.append(text)
                boxes.append(page_boxes)
    except pdfium.PdfiumError as error:
        if error.err_code == pdfium_c.FPDF_ERR_PASSWORD:
            raise InvalidInputError("The PDF is encrypted: remove its password and upload it again") from error
        raise InvalidInputError("The PDF is broken and cannot be read: export it again from its source") from error
    text = "".join(texts)
    if not text.strip():
        raise InvalidInputError("The PDF has no text layer, only images: run OCR on it and upload the result")
    return ReadDocument(text, "application/pdf", page_count, np.concatenate(boxes))


def _read_page(page: pdfium.PdfPage, number: int) -> tuple[str, NDArray[np.float32]]:
    """Return a page's text, a line end behind it, and a row of `ReadDocument.boxes` for each of its characters."""
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
    """Return the map (3, 2) from a page's own coordinates to points from the top left of the page as it is shown."""
    fine = 1000
    width, height = (round(side * fine) for side in page.get_size())
    shown = []
    for x, y in ((0, 0), (1000, 0), (0, 1000)):
        left, top = pdfium_c.c_int(), pdfium_c.c_int()
        pdfium_c.FPDF_PageToDevice(page, 0, 0, width, height, 0, x, y, left, top)
        shown.append((left.value / fine, top.value / fine))
    origin, along_x, along_y = np.array(shown)
    return np.array([(along_x - origin) / 1000, (along_y - origin) / 1000, origin])
