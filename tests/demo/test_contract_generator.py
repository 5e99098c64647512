import pytest

from demo.alignment import carry_spans
from demo.contract_generator import generate_contract
from demo.wording import WORDINGS
from intake.reading import read_document
from registry.settings import Settings


@pytest.mark.parametrize("seed", range(24))
def test_generated_pdf_reads_as_written_and_its_entities_stand_there(seed: int) -> None:
    contract = generate_contract(seed)
    text = read_document(contract.pdf, Settings()).text
    carried = carry_spans(contract.text, contract.spans, text)
    for span, written in zip(carried, contract.spans, strict=True):
        value = contract.text[written.start : written.end]
        assert "".join(text[span.start : span.end].split()) == "".join(value.split())
    assert {span.type for span in carried} >= {"document_name", "party", "effective_date", "governing_law"}


def test_same_seed_makes_the_same_bytes() -> None:
    assert generate_contract(3) == generate_contract(3)


def test_both_languages_have_every_kind() -> None:
    languages = [wording.language for wording in WORDINGS]
    assert languages.count("pt") == languages.count("en") == 4


def test_texts_that_differ_are_not_aligned() -> None:
    with pytest.raises(ValueError, match="3 characters were written and 4 read"):
        carry_spans("abc", [], "ab cd")
