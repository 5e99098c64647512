"""Pages are drawn in a process of their own, within limits, whatever is in the PDF."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from intake.page_images import PageImages, draw_pages
from registry.document_store import DocumentStore
from registry.errors import InvalidInputError, UnavailableError
from registry.settings import Settings
from tests.intake.pdfs import SLOW, build_pdf, write

HOSTILE = Path(__file__).parents[3] / "shared" / "data" / "pdfs" / "hostile"
FIVE = build_pdf(*(write(f"Page {number}") for number in range(1, 6)))


@pytest.fixture
def store(tmp_path: Path) -> DocumentStore:
    store = DocumentStore(Settings(document_store_url=str(tmp_path / "documents")))
    for document_id in ("a", "b", "c"):
        store.save(document_id, FIVE, None)
    return store


def measure(image: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(image)).size


@pytest.mark.parametrize(
    ("attributes", "size"),
    [(b"", (612, 792)), (b"/Rotate 90", (612, 473)), (b"/MediaBox [0 0 20 12000]", (54, 32_000))],
    ids=["upright", "rotated", "very long"],
)
def test_page_is_as_wide_as_asked_for_unless_it_is_very_long(attributes: bytes, size: tuple[int, int]) -> None:
    (image,) = draw_pages(build_pdf(write("Bell"), attributes=attributes), [1], 612, Settings())
    assert measure(image) == size


def test_slow_page_is_refused_in_time_and_holds_up_no_other() -> None:
    pdf, started = build_pdf(write("one"), SLOW, write("three")), time.monotonic()
    assert len(draw_pages(pdf, [1, 2, 3], 1200, Settings())) == 1
    assert len(draw_pages(pdf, [3], 1200, Settings())) == 1
    with pytest.raises(InvalidInputError, match="Page 2 was not drawn within 1 s"):
        draw_pages(pdf, [2], 1200, Settings(pdf_seconds=1))
    assert time.monotonic() - started < 10


def test_broken_page_is_refused_and_the_others_are_drawn() -> None:
    pdf = build_pdf(write("one"), b"", write("three"))
    assert len(draw_pages(pdf, [3], 200, Settings())) == 1
    with pytest.raises(InvalidInputError, match="Page 2 cannot be drawn: it is broken"):
        draw_pages(pdf, [2], 200, Settings())


def test_page_that_needs_too_much_memory_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="or needs too much memory"):
        draw_pages(FIVE, [1], 200, Settings(pdf_memory_bytes=1_000_000))


def test_next_pages_are_drawn_along_and_found_without_the_pdf(store: DocumentStore) -> None:
    images = PageImages(Settings(), store)
    first = images.get("a", 1, 200, 5)
    store.delete("a")
    assert images.get("a", 1, 200, 5) == first
    assert [("a", number, 200) in images for number in range(1, 6)] == [True] * 4 + [False]
    assert len({images.get("a", number, 200, 5) for number in range(1, 5)}) == 4
    with pytest.raises(UnavailableError):
        images.get("a", 5, 200, 5)


@pytest.fixture
def loaded(store: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents whose files were loaded from the store, in order."""
    loaded, load = list[str](), store.load_content

    def load_noted(document_id: str) -> bytes:
        loaded.append(document_id)
        return load(document_id)

    monkeypatch.setattr(store, "load_content", load_noted)
    return loaded


def test_threads_that_ask_for_neighbouring_pages_start_one_process(store: DocumentStore, loaded: list[str]) -> None:
    images = PageImages(Settings(), store)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(images.get, "a", 1, 200, 5)
        while not loaded:
            time.sleep(0.001)
        others = [pool.submit(images.get, "a", number, 200, 5) for number in (2, 3, 4)]
        assert len({first.result(), *(each.result() for each in others)}) == 4
    assert loaded == ["a"]


def test_threads_that_ask_for_pages_that_are_not_stored_read_the_document_once(
    store: DocumentStore, loaded: list[str]
) -> None:
    images = PageImages(Settings(), store)
    with ThreadPoolExecutor(4) as pool:
        assert {len(pages) for pages in pool.map(images.read_pages, ["a"] * 4)} == {5}
    assert loaded == ["a"]


def test_images_that_were_not_asked_for_longest_are_forgotten_above_the_limit(store: DocumentStore) -> None:
    (image,) = draw_pages(FIVE, [5], 200, Settings())
    images = PageImages(Settings(), store, max_bytes=2 * len(image))
    for document_id in ("a", "b", "a", "c"):
        images.get(document_id, 5, 200, 5)
    assert [(name, 5, 200) in images for name in ("a", "b", "c")] == [True, False, True]


def test_images_of_a_deleted_document_are_forgotten_and_no_others(store: DocumentStore) -> None:
    images = PageImages(Settings(), store)
    images.get("a", 5, 200, 5)
    images.get("b", 5, 200, 5)
    images.forget("a")
    assert [(name, 5, 200) in images for name in ("a", "b")] == [False, True]


@pytest.mark.skipif(not HOSTILE.exists(), reason="../shared/data/pdfs is not there")
def test_every_page_of_a_hostile_pdf_is_drawn_or_refused() -> None:
    drawn = refused = 0
    for file in sorted(HOSTILE.glob("*.pdf")):
        for number in (1, 2, 3):
            try:
                drawn += len(draw_pages(file.read_bytes(), [number], 200, Settings()))
            except InvalidInputError:
                refused += 1
    assert (drawn, refused) == (7, 14)
