import time

import numpy as np
import pytest

from demo.alignment import carry_spans
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.lexical import split_words
from intake.location import Location, Places, Word, list_words, locate
from intake.reading import read_document
from registry.errors import InvalidInputError, WrongValueError
from registry.settings import Settings


def test_every_entity_is_found_again_at_its_location() -> None:
    contract = generate_contract(10)
    read = read_document(contract.pdf, Settings())
    assert read.boxes is not None
    places = Places(read.boxes)
    for span in carry_spans(contract.text, contract.spans, read.text):
        locations = locate(read.boxes, span.start, span.end)
        value = read.text[span.start : span.end]
        assert places.find_offsets(locations, read.text, value) == (span.start, span.end)
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


def test_words_are_letters_or_single_marks_and_have_the_boxes_of_their_characters() -> None:
    text, boxless = "ab c-d\u200be\nf", (0, 0, 0, 0, 0)
    first = [(1, left, 10, left + 5, 20) for left in (10, 15, 20, 25, 30)]
    second = [(1, 10, 19, 15, 31), boxless, (1, 15, 20, 20, 30), boxless, (2, 0, 0, 5, 5)]
    boxes = np.array([*first, *second], dtype=np.float32)
    assert list_words(text, boxes, 0, 9) == [
        Word(start=0, end=2, box=(10, 10, 20, 20)),
        Word(start=3, end=4, box=(25, 10, 30, 20)),
        Word(start=4, end=5, box=(30, 10, 35, 20)),
        Word(start=5, end=6, box=(10, 19, 15, 31)),
        Word(start=7, end=8, box=(15, 20, 20, 30)),
    ]
    assert list_words(text, boxes, 8, 9) == []
    assert list_words(text, boxes, 9, 10) == [Word(start=9, end=10, box=(0, 0, 5, 5))]


def test_words_of_a_contract_are_those_of_its_text() -> None:
    read = read_document(generate_contract(10).pdf, Settings())
    assert read.boxes is not None
    assert read.pages is not None
    _, height, start, end = read.pages[0].tolist()
    words = list_words(read.text, read.boxes, int(start), int(end))
    assert [[word.start, word.end] for word in words] == (
        split_words(read.text[int(start) : int(end)]) + start
    ).tolist()
    tops = [word.box[1] for word in words]
    assert 0 < min(tops) < max(tops) < height


def test_words_of_a_full_page_and_the_places_of_many_long_annotations_are_found_fast() -> None:
    boxes = np.ones((1_000_000, 5), dtype=np.float32)
    column = np.arange(1_000_000) % 100
    boxes[:, 1], boxes[:, 3] = column, column + 1
    boxes[:, 2] = np.arange(1_000_000) // 100 * 10
    boxes[:, 4] = boxes[:, 2] + 10
    before = time.process_time()
    assert len(list_words("some of " * 125_000, boxes, 500_000, 510_000)) == 2_500
    for start in range(0, 990_000, 4_950):
        assert len(locate(boxes, start, start + 10_000)[0].boxes) > 100 - 1
    assert time.process_time() - before < 2


def test_value_over_two_pages_is_found_and_one_outside_the_boxes_is_not() -> None:
    boxes = np.array([(2, 5, 5, 9, 9), (0, 0, 0, 0, 0), (1, 1, 1, 2, 2), (1, 3, 1, 4, 2)], dtype=np.float32)
    places, both = Places(boxes), [Location(page=page, boxes=[(0, 0, 2.5, 9), (3, 0, 9, 9)]) for page in (1, 2)]
    assert places.find_offsets(both, "a bc", "a b") == (0, 3)
    with pytest.raises(WrongValueError):
        places.find_offsets(both[:1], "a bc", "a")
    with pytest.raises(InvalidInputError, match="no text"):
        places.find_offsets([Location(page=3, boxes=[(0, 0, 9, 9)])], "a bc", "a")


def test_boxes_are_compared_with_the_characters_of_their_page_alone() -> None:
    boxes = np.zeros((1_000_000, 5), dtype=np.float32)
    boxes[:, 0] = np.arange(1_000_000) // 1_000 + 1
    nowhere = [Location(page=page, boxes=[(1, 1, 2, 2)] * 100) for page in range(1, 101)]
    before = time.process_time()
    with pytest.raises(InvalidInputError, match="no text"):
        Places(boxes).find_offsets(nowhere, "", "a")
    assert time.process_time() - before < 5  # all characters take 20 s


def test_more_than_a_billion_comparisons_in_a_request_are_refused() -> None:
    places = Places(np.ones((600_000, 5), dtype=np.float32))
    half = [Location(page=1, boxes=[(2, 2, 3, 3)] * 900)]
    with pytest.raises(InvalidInputError, match="no text"):
        places.find_offsets(half, "", "a")
    with pytest.raises(InvalidInputError, match="more than 1000000000: give start and end"):
        places.find_offsets(half, "", "a")
