import numpy as np

from demo.alignment import carry_spans
from demo.contract_generator import generate_contract
from intake.location import Location, find_offsets, locate
from intake.reading import read_document
from registry.settings import Settings


def test_every_entity_is_found_again_at_its_location() -> None:
    contract = generate_contract(10)
    read = read_document(contract.pdf, Settings())
    assert read.boxes is not None
    for span in carry_spans(contract.text, contract.spans, read.text):
        locations = locate(read.boxes, span.start, span.end)
        value = read.text[span.start : span.end]
        assert find_offsets(read.boxes, locations, read.text, value) == (span.start, span.end)
        assert all(0 < left < right < 620 and 0 < top < bottom < 850 for left, top, right, bottom in locations[0].boxes)


def test_title_stands_above_the_rest() -> None:
    contract = generate_contract(10)
    read = read_document(contract.pdf, Settings())
    assert read.boxes is not None
    spans = carry_spans(contract.text, contract.spans, read.text)
    tops = {span.type: locate(read.boxes, span.start, span.end)[0].boxes[0][1] for span in spans}
    assert tops["document_name"] == min(tops.values())


def test_two_lines_make_two_boxes_and_two_pages_two_locations() -> None:
    boxes = np.array([(1, 10, 10, 20, 20), (1, 20, 11, 30, 20), (1, 10, 30, 20, 40), (2, 5, 5, 9, 9)], dtype=np.float32)
    assert locate(boxes, 0, 4) == [
        Location(page=1, boxes=[(10, 10, 30, 20), (10, 30, 20, 40)]),
        Location(page=2, boxes=[(5, 5, 9, 9)]),
    ]
