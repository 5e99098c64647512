"""Read the corpora of `../shared/data`, whose README describes them, and generate contracts."""

import contextlib
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from demo.alignment import carry_spans
from demo.client import ContractReviewer, ReviewedDocument
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from intake.reading import read_document
from registry.settings import Settings

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
_seeds = count()


@dataclass(frozen=True)
class Contract:
    """A file that a reviewer uploads, and the text that the service reads from it, with its gold spans."""

    filename: str
    content: bytes
    data: AnnotationData


def read_contracts(path: Path) -> Iterator[Contract]:
    """Read a corpus in a format of `../shared/data/README.md`: a `.jsonl.xz`, a `.jsonl` or the folder `pdfs`.

    A PDF is skipped if PDFium does not read exactly the characters of the gold text (one of the 60).
    """
    if path.is_dir():
        yield from _read_pdfs(path)
    else:
        for data in read_corpus(path):
            yield Contract(f"{data.document_id}.txt", data.text.encode(), data)


def _read_pdfs(folder: Path) -> Iterator[Contract]:
    gold = {data.document_id: data for data in read_corpus(folder.parent / "cuad/train.jsonl.xz")}
    for entry in json.loads((folder / "contracts.json").read_text()):
        written, pdf = gold[entry["cuad_id"]], (folder / entry["file"]).read_bytes()
        text = read_document(pdf, Settings()).text
        with contextlib.suppress(ValueError):
            spans = tuple(carry_spans(written.text, written.spans, text))
            yield Contract(entry["file"], pdf, AnnotationData(written.document_id, text, spans))


def read_corpus(path: Path) -> list[AnnotationData]:
    """Read a `.jsonl.xz` or `.jsonl` in the format of `../shared/data/README.md`."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file.read().split("\n") if line]
    return [
        AnnotationData(
            row["id"],
            row["text"],
            tuple(Span(entity["start"], entity["end"], entity["type"]) for entity in row["entities"]),
        )
        for row in rows
    ]


def join_generated(seeds: Iterator[int], characters: int) -> tuple[str, tuple[Span, ...]]:
    """Join generated contracts to a text of at least `characters`; return it with the spans of the first."""
    contract = generate_contract(next(seeds))
    text = contract.text
    while len(text) < characters:
        text += "\n\n" + generate_contract(next(seeds)).text
    return text, contract.spans


def upload_generated(client: ContractReviewer, characters: int) -> ReviewedDocument:
    """Upload a text of at least `characters`: a generated contract with its spans, then more without theirs."""
    text, spans = join_generated(_seeds, characters)
    return client.upload("contract.txt", text.encode(), text, spans)
