"""PDFs made by hand, which no library writes."""

_CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
_LAYER = b"<< /Type /XObject /Subtype /Form /BBox [0 0 612 792] /Group << /S /Transparency >> /Length 25 >>"
_FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def build_pdf(*contents: bytes, attributes: bytes = b"") -> bytes:
    """Return a PDF with a page for each content; one without content is no page. /F is a font, /X a transparent layer.

    It has no table of its objects: PDFium searches them.
    """
    kids = b" ".join(b"%d 0 R" % (10 + 2 * index) for index in range(len(contents)))
    objects = {
        1: _CATALOG,
        2: b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(contents)),
        3: _LAYER + b"\nstream\n1 0 0 rg 0 0 612 792 re f\nendstream",
        4: _FONT,
        5: b"<< /Type /ExtGState /ca 0.5 >>",
    }
    resources = b"/Resources << /Font << /F 4 0 R >> /XObject << /X 3 0 R >> /ExtGState << /A 5 0 R >> >>"
    for index, content in enumerate(contents):
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] %s %s /Contents %d 0 R >>"
        objects[10 + 2 * index] = page % (attributes, resources, 11 + 2 * index) if content else b"null"
        objects[11 + 2 * index] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, each) for number, each in objects.items())
    return b"%PDF-1.7\n" + body + b"trailer << /Root 1 0 R >>\n%%EOF\n"


def write(text: str) -> bytes:
    """Return the content of a page with one line of text."""
    return b"BT /F 24 Tf 72 700 Td (%s) Tj ET" % text.encode()


SLOW = b"/A gs " + b"/X Do " * 100_000  # takes minutes to draw
