import dataclasses
import random

import pytest
from torch.nn.utils import parameters_to_vector

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.evaluation import evaluate
from embeddinggemma_feasibility.head_training import train_head
from embeddinggemma_feasibility.samples import TrainingSamples, choose_samples
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig


def build_tagger(documents: list[AnnotationData], encoder: Encoder) -> tuple[Tagger, TrainingSamples]:
    """Return a tagger that has learned nothing, and the samples of the documents."""
    tagger = Tagger(encoder, sorted({span.type for data in documents for span in data.spans}), TrainingConfig())
    samples = choose_samples(tagger, documents, (), 0, None, None, random.Random(0))  # noqa: S311
    tagger.standardise([sample.representation for sample in samples.new])
    return tagger, samples


def value_f1(tagger: Tagger, documents: list[AnnotationData]) -> float:
    return evaluate(documents, {data.document_id: tagger.extract(data.text) for data in documents}).value.f1


def distance(one: Tagger, other: Tagger) -> float:
    """Return how far the weights of two taggers are apart, as a share of their size."""
    ours, theirs = (parameters_to_vector(tagger.parameters(recurse=False)).detach() for tagger in (one, other))
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def converged(contracts: list[AnnotationData], tiny_encoder: Encoder) -> tuple[Tagger, TrainingSamples]:
    tagger, samples = build_tagger(contracts, tiny_encoder)
    train_head(tagger, samples, 200)
    return tagger, samples


def test_known_samples_with_a_few_replayed_ones_that_stand_for_many_hardly_move_the_weights(
    converged: tuple[Tagger, TrainingSamples],
) -> None:
    champion, samples = converged
    tagger = champion.copy_with_types(champion.types)
    known, replayed = samples.new[:2], samples.new[2:6]
    train_head(tagger, TrainingSamples(known, replayed, len(samples.new) / len(replayed)), 10)
    assert distance(tagger, champion) < 0.1


def test_twenty_types_are_learned_as_ten_of_them_are(tiny_encoder: Encoder) -> None:
    kinds = [f"type{letter}" for letter in "abcdefghijklmnopqrst"]
    documents = []
    for number in range(6):
        text = " . ".join(f"{kind} : {kind[-1]}x{number} paid" for kind in kinds)
        starts = [(text.index(f"{kind} : ") + len(f"{kind} : "), kind) for kind in kinds]
        spans = tuple(Span(start, start + len("ax0"), kind) for start, kind in starts)
        documents.append(AnnotationData(str(number), text, spans))
    tagger, samples = build_tagger(documents, tiny_encoder)
    train_head(tagger, samples, 60)
    assert value_f1(tagger, documents) == 1
    for part in (kinds[:10], kinds[10:]):
        of_part = [
            dataclasses.replace(data, spans=tuple(span for span in data.spans if span.type in part))
            for data in documents
        ]
        few, samples = build_tagger(of_part, tiny_encoder)
        train_head(few, samples, 60)
        both = few.rank(documents[0].text)[:10], tagger.copy_with_types(part).rank(documents[0].text)[:10]
        alike = zip(*both, strict=True)
        assert all(one.confidence == pytest.approx(other.confidence, abs=0.02) for one, other in alike)


def test_more_iterations_fit_the_documents_no_worse(contracts: list[AnnotationData], tiny_encoder: Encoder) -> None:
    scores = []
    for iterations in (5, 20, 60, 200):
        tagger, samples = build_tagger(contracts, tiny_encoder)
        train_head(tagger, samples, iterations)
        scores.append(value_f1(tagger, contracts))
    assert scores[0] < 0.7
    assert min(scores[1:]) > 0.9


def test_progress_of_all_groups_of_types_is_reported_once(tiny_encoder: Encoder) -> None:
    text, spans = "Fee: 100 EUR", tuple(Span(5, 8, f"type{number}") for number in range(20))
    tagger, samples = build_tagger([AnnotationData("d", text, spans)], tiny_encoder)
    shares: list[float] = []
    train_head(tagger, samples, 3, shares.append)
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[-1] == 1
