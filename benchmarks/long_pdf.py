"""A PDF of many pages, which tests and benchmarks scroll through."""

import io

from reportlab.pdfgen.canvas import Canvas

_LINE = "Clause {number}: the parties agree on what is written on this page, and on nothing that is written elsewhere."


def build_long_pdf(pages: int) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file)
    for page in range(pages):
        for line in range(28):
            canvas.drawString(50, 790 - 26 * line, _LINE.format(number=f"{page + 1}.{line + 1}"))
        canvas.showPage()
    canvas.save()
    return file.getvalue()
