"""PDFs are read in a process of their own, within limits, whatever is in them."""

import random
from pathlib import Path
from typing import Any

import pytest

from demo.contract_generator import generate_contract
from intake.reading import encode_text, read_document
from registry.errors import ContractFeedbackError, InvalidInputError
from registry.settings import Settings

PDFS = Path(__file__).parents[3] / "shared" / "data" / "pdfs"
MUTATIONS = 40


def mutate(content: bytes, seed: int) -> bytes:
    """Return the bytes flipped, cut, repeated, or with an object that refers to another one or to itself."""
    rng, damaged = random.Random(seed), bytearray(content)  # noqa: S311
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.randint(1, 200)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    elif kind == 1:
        start = rng.randrange(len(damaged))
        del damaged[start : start + rng.randint(1, len(damaged) // 2)]
    elif kind == 2:
        start = rng.randrange(len(damaged))
        piece = damaged[start : start + rng.randint(1, 5000)]
        damaged[start:start] = piece * rng.randint(1, 50)
    else:
        references = [place for place in range(len(damaged)) if damaged[place : place + 4] == b" 0 R"]
        for place in rng.sample(references, min(len(references), 5)):
            damaged[place - 1 : place] = str(rng.randint(1, 9)).encode()
    return bytes(damaged)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_pages": 0}, "up to 0 are read"),
        ({"max_characters": 100}, "more than 100 characters"),
        ({"pdf_seconds": 0.001}, "not read within 0.001 s"),
    ],
)
def test_pdf_beyond_a_limit_is_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_document(generate_contract(0).pdf, Settings(**limits))


def test_pdf_that_needs_more_memory_than_it_may_have_is_refused() -> None:
    large = generate_contract(0).pdf + b" " * 10_000_000
    with pytest.raises(InvalidInputError, match="cannot be read within the memory limit"):
        read_document(large, Settings(pdf_memory_bytes=1_000_000))


@pytest.mark.parametrize("text", ["a", "\ufeffa", "\ufeff\ufeffa", "%PDF-1.7", " \n%PDF-1.7", "\ufeff%PDF-1.7"])
def test_encoded_text_is_read_as_itself(text: str) -> None:
    read = read_document(encode_text(text), Settings())
    assert (read.text, read.media_type) == (text, "text/plain")


def test_text_beyond_the_limit_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="more than 5 characters"):
        read_document(b"123456", Settings(max_characters=5))


def test_reader_sees_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert read_document(generate_contract(0).pdf, Settings()).page_count


@pytest.mark.slow
@pytest.mark.skipif(not PDFS.exists(), reason="../shared/data/pdfs is not there")
def test_damaged_pdf_is_read_or_refused() -> None:
    originals = sorted(PDFS.rglob("*.pdf"))
    refused = 0
    for seed in range(MUTATIONS):
        content = originals[seed % len(originals)].read_bytes()
        try:
            read_document(mutate(content, seed), Settings())
        except ContractFeedbackError:
            refused += 1
    assert 0 < refused < MUTATIONS
