"""Which documents and samples a training learns from."""

import random

import torch

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.representations import Representation
from embeddinggemma_feasibility.samples import Sample, TrainingSamples, choose_documents


def build_documents(types: list[str]) -> list[AnnotationData]:
    return [AnnotationData(str(number), "a", (Span(0, 1, name),)) for number, name in enumerate(types)]


def test_choice_of_documents_has_every_type_and_keeps_the_order() -> None:
    documents = build_documents(["common"] * 990 + [f"rare {number}" for number in range(10)])
    chosen = choose_documents(documents, 100)
    assert len({data.document_id for data in chosen}) == 100
    assert chosen[-10:] == documents[-10:]
    assert chosen == sorted(chosen, key=lambda data: int(data.document_id))


def test_each_type_has_one_document_before_any_has_two() -> None:
    documents = build_documents([f"type {number % 40}" for number in range(1000)])
    chosen = choose_documents(documents, 40)
    assert len({data.spans[0].type for data in chosen}) == 40


def test_choice_changes_little_as_documents_come() -> None:
    documents = build_documents(["common"] * 1010)
    before, after = ({data.document_id for data in choose_documents(documents[:count], 500)} for count in (1000, 1010))
    assert len(before & after) >= 485


def test_all_documents_are_chosen_if_they_are_few() -> None:
    documents = build_documents(["common"] * 20)
    assert choose_documents(documents, 100) == documents


def test_limited_samples_keep_the_rare_types_and_stand_for_all() -> None:
    nothing = Representation(*(torch.zeros(1, 2),) * 5)
    tags = [[1, 0]] * 990 + [[0, 1]] * 10
    samples = [Sample(nothing, 0, torch.tensor([each]), torch.ones(2)) for each in tags]
    limited = TrainingSamples(samples, []).limit(100, 4.0, random.Random(0))  # noqa: S311
    assert sum(int(sample.tags[0, 1]) for sample in limited.replayed) == 10
    assert (len(limited.replayed), limited.replayed_weight) == (100, 40.0)
