"""A program that draws pages of the PDF on its standard input, so that a hostile file harms no other process.

`python -I page_drawer.py MAX_BYTES WIDTH NUMBER…` limits its own memory and writes no files. For each page it writes
the size of the image in bytes, as four bytes, and the image in JPEG. The pages after the first are drawn ahead: all
together have a second, then the process ends. It imports no numpy, which would double the time of its start.
"""

import io
import math
import resource
import signal
import sys

import pypdfium2 as pdfium

_SECONDS_AHEAD = 1.0
_MAX_PIXELS = 9_000_000  # an A4 page of 2,400 pixels in width has 8,100,000
_MAX_SIDE = 32_000  # pixels; JPEG stores 65,535
_QUALITY = 85  # 5 ms and 220 kB for a page of text 1,200 pixels wide; WebP takes 30 ms and 140 kB, PNG 30 ms and more


def main() -> None:
    """Draw within the given limits; the process dies if it exceeds its memory limit, or the PDF or a page is broken."""
    max_bytes, width, *numbers = (int(argument) for argument in sys.argv[1:])
    for limit, most in ((resource.RLIMIT_AS, max_bytes), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    with pdfium.PdfDocument(sys.stdin.buffer.read()) as document:
        document.init_forms()
        for number in numbers:
            image = draw_page(document[number - 1], width)
            sys.stdout.buffer.write(len(image).to_bytes(4, "big") + image)
            sys.stdout.buffer.flush()
            if number == numbers[0]:
                signal.setitimer(signal.ITIMER_REAL, _SECONDS_AHEAD)


def draw_page(page: pdfium.PdfPage, width: int) -> bytes:
    """Return an image of a page in JPEG, as wide as asked for unless the page is too long."""
    page_width, page_height = (max(side, 1.0) for side in page.get_size())
    scale = min(width / page_width, math.sqrt(_MAX_PIXELS / (page_width * page_height)), _MAX_SIDE / page_height)
    image = page.render(scale=scale, rev_byteorder=True).to_pil()
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
