"""The samples of a fine-tuning: stretches of words, chosen from annotated documents."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.representations import Representation
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.windows import tag_words


@dataclass(frozen=True, eq=False)
class TrainingDocument:
    """An annotated document with its representation.

    :param tags: Gold tag of each word for each type.
        Shape: (words, types)
    :param reviewed: 1 for each type that the document was reviewed for, else 0.
        Shape: (types,)
    """

    data: AnnotationData
    representation: Representation
    tags: Tensor
    reviewed: Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """Consecutive words of a document."""

    document: TrainingDocument
    words: slice


def choose_samples(
    tagger: Tagger,
    annotations: Sequence[AnnotationData],
    replay: Sequence[AnnotationData],
    champion: Tagger | None,
    cache: DiskCache | None,
    rng: random.Random,
) -> list[Sample]:
    """Return the samples of the new documents, and at most `replay_samples` of the earlier documents.

    Of each document these are all samples with an entity, or with an error of the champion's, and some without.
    """

    def cut(documents: Sequence[AnnotationData], champion: Tagger | None) -> list[Sample]:
        represented = (_represent(tagger, data, cache) for data in documents)
        return [sample for document in represented for sample in _cut(tagger, document, champion, rng)]

    samples, earlier = cut(annotations, champion), cut(replay, None)
    return samples + rng.sample(earlier, min(len(earlier), tagger.config.replay_samples))


def mask_reviewed(data: AnnotationData, types: Sequence[str]) -> Tensor:
    """Return 1 for each type that a document was reviewed for, else 0.

    :returns: A mask of the types.
        Shape: (types,)
    """
    return torch.tensor([float(data.is_reviewed(name)) for name in types])


def _represent(tagger: Tagger, data: AnnotationData, cache: DiskCache | None) -> TrainingDocument:
    representation = tagger.represent(data.text, cache)
    tags = torch.from_numpy(tag_words(representation.words.numpy(), data.spans, tagger.types))
    return TrainingDocument(data, representation, tags, mask_reviewed(data, tagger.types))


def _cut(tagger: Tagger, document: TrainingDocument, champion: Tagger | None, rng: random.Random) -> list[Sample]:
    """Return a document's samples with an annotated or predicted entity, and `empty_samples` times as many others."""
    size, count = tagger.config.sample_words, len(document.tags)
    predicted = champion.decode(document.data.text, document.representation) if champion else []
    informative: list[Sample] = []
    empty: list[Sample] = []
    for first in range(0, count, size):
        words = slice(first, min(first + size, count))
        has_entity = bool(document.tags[words].any()) or _has_entity(document.representation, words, predicted)
        (informative if has_entity else empty).append(Sample(document, words))
    wanted = max(1, round(tagger.config.empty_samples * len(informative)))
    return informative + rng.sample(empty, min(len(empty), wanted))


def _has_entity(representation: Representation, words: slice, entities: Sequence[Entity]) -> bool:
    start, end = int(representation.words[words.start, 0]), int(representation.words[words.stop - 1, 1])
    return any(entity.start < end and entity.end > start for entity in entities)
