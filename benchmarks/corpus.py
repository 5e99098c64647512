"""The corpora of `../shared/data`, read as annotations; its README says what is odd about them."""

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from local.contract_generator import generate_contract

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True)
class PdfContract:
    """A real contract: the PDF, and its gold as offsets into the corpus's own text."""

    filename: str
    pdf: bytes
    gold: AnnotationData


def read_corpus(path: Path) -> list[AnnotationData]:
    """Read a `.jsonl.xz` or `.jsonl` in the form of `../shared/data/README.md`."""
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
    """Return generated contracts one below the other, at least so many characters, and the spans of the first."""
    contract = generate_contract(next(seeds))
    text = contract.text
    while len(text) < characters:
        text += "\n\n" + generate_contract(next(seeds)).text
    return text, contract.spans


def read_pdf_contracts() -> Iterator[PdfContract]:
    """Read the CUAD contracts that are there as PDFs, in their order."""
    gold = {data.document_id: data for data in read_corpus(SHARED_DATA / "cuad/train.jsonl.xz")}
    for entry in json.loads((SHARED_DATA / "pdfs/contracts.json").read_text()):
        path = SHARED_DATA / "pdfs" / entry["file"]
        yield PdfContract(path.name, path.read_bytes(), gold[entry["cuad_id"]])
