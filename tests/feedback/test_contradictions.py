"""Contradictions between annotations and what a tagger that has not seen them finds."""

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from feedback.contradictions import Contradiction, find_contradictions

TEXT = "Acme Ltd of Leeds, 3 May 2024"
PARTY, DATE = (0, 8), (19, 29)


def review(document_id: str, *spans: tuple[tuple[int, int], str]) -> AnnotationData:
    return AnnotationData(document_id, TEXT, tuple(Span(start, end, name) for (start, end), name in spans))


def found(place: tuple[int, int], name: str, confidence: float) -> Entity:
    return Entity(name, TEXT[slice(*place)], *place, confidence)


def test_value_found_with_certainty_and_not_marked_is_a_contradiction_with_what_it_is_marked_as() -> None:
    data = review("a", (PARTY, "city"))
    unseen = {"a": [found(PARTY, "party", 0.95), found(DATE, "date", 0.85)]}
    assert find_contradictions([data], unseen) == [Contradiction("a", *PARTY, "party", ("city",), 0.95)]


def test_value_that_is_marked_elsewhere_or_listed_already_is_no_contradiction() -> None:
    text = "Acme Ltd and ACME LTD."
    data = AnnotationData("a", text, (Span(0, 8, "party"),))
    mentions = [Entity(name, text[13:21], 13, 21, 0.95) for name in ("party", "city", "city")]
    assert find_contradictions([data], {"a": mentions}) == [Contradiction("a", 13, 21, "city", (), 0.95)]


def test_type_that_the_reviewer_did_not_know_is_no_contradiction() -> None:
    data = AnnotationData("a", TEXT, (), frozenset({"date"}))
    assert find_contradictions([data], {"a": [found(PARTY, "party", 1)]}) == []


def test_documents_with_most_contradictions_are_first() -> None:
    few, many = review("few", (DATE, "date")), review("many")
    unseen = {data.document_id: [found(DATE, "date", 1), found(PARTY, "party", 1)] for data in (few, many)}
    assert [each.document_id for each in find_contradictions([few, many], unseen)] == ["many", "many", "few"]
