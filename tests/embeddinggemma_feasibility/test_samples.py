"""Which documents and samples a training learns from."""

import random

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.samples import choose_documents


def test_choice_of_documents_has_every_type_and_keeps_the_order() -> None:
    types = ["common"] * 990 + [f"rare {number}" for number in range(10)]
    documents = [AnnotationData(str(number), "a", (Span(0, 1, name),)) for number, name in enumerate(types)]
    chosen = choose_documents(documents, 100, random.Random(0))  # noqa: S311
    assert len({data.document_id for data in chosen}) == 100
    assert chosen[-10:] == documents[-10:]
    assert chosen == sorted(chosen, key=lambda data: int(data.document_id))


def test_all_documents_are_chosen_if_they_are_few() -> None:
    documents = [AnnotationData(str(number), "a", ()) for number in range(20)]
    assert choose_documents(documents, 100, random.Random(0)) == documents  # noqa: S311
