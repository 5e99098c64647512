"""The samples of a fine-tuning: stretches of words, chosen from annotated documents."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.halves import half_of
from embeddinggemma_feasibility.representations import Representation
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.windows import tag_words

_LEAST_EMPTY = 50  # samples without an entity of the types, where there are several groups of types


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

    @property
    def tags(self) -> Tensor:
        """Return the gold tag of each word for each type.

        :returns: Tags.
            Shape: (words, types)
        """
        return self.document.tags[self.words]


@dataclass(frozen=True)
class TrainingSamples:
    """The samples of new documents, and those replayed: each of these stands for `replayed_weight` earlier samples."""

    new: list[Sample]
    replayed: list[Sample]
    replayed_weight: float = 1.0

    def documents(self) -> list[TrainingDocument]:
        """Return the documents of the samples, each once."""
        return list(dict.fromkeys(sample.document for sample in (*self.new, *self.replayed)))

    def without_half(self, half: int) -> "TrainingSamples":
        """Return the samples of the documents in the other half."""
        new, replayed = (
            [sample for sample in samples if half_of(sample.document.data.text) != half]
            for samples in (self.new, self.replayed)
        )
        return replace(self, new=new, replayed=replayed)

    def select_types(self, types: Sequence[str], chosen: Sequence[str]) -> "TrainingSamples":
        """Return the samples with tags of some of the types only; most samples without any of these are left out."""
        columns = torch.tensor([types.index(name) for name in chosen])
        documents: dict[TrainingDocument, TrainingDocument] = {}

        def narrow(samples: Sequence[Sample]) -> list[Sample]:
            narrowed, empty = list[Sample](), list[Sample]()
            for sample in samples:
                document = sample.document
                if document not in documents:
                    tags, reviewed = document.tags[:, columns], document.reviewed[columns]
                    documents[document] = replace(document, tags=tags, reviewed=reviewed)
                of_types = Sample(documents[document], sample.words)
                (narrowed if of_types.tags.any() else empty).append(of_types)
            return narrowed + empty[:: max(1, len(empty) // max(2 * len(narrowed), _LEAST_EMPTY))]

        return replace(self, new=narrow(self.new), replayed=narrow(self.replayed))


def choose_samples(
    tagger: Tagger,
    annotations: Sequence[AnnotationData],
    replay: Sequence[AnnotationData],
    earlier_count: int,
    champion: Tagger | None,
    cache: DiskCache | None,
    rng: random.Random,
) -> TrainingSamples:
    """Return the samples of the new documents, and at most `replay_samples` of the replayed documents.

    Of each document these are all samples with an entity, or with one that the champion finds, and some without.
    `earlier_count` is the number of earlier documents, for which those of `replay` stand.
    """

    def cut(documents: Sequence[AnnotationData], champion: Tagger | None) -> list[Sample]:
        represented = (_represent(tagger, data, cache) for data in documents)
        return [sample for document in represented for sample in _cut(tagger, document, champion, cache, rng)]

    new, earlier = cut(annotations, champion), cut(replay, None)
    chosen = rng.sample(earlier, min(len(earlier), tagger.config.replay_samples))
    weight = len(earlier) * max(earlier_count, len(replay)) / len(replay) / len(chosen) if chosen else 1.0
    return TrainingSamples(new, chosen, weight)


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


def _cut(
    tagger: Tagger, document: TrainingDocument, champion: Tagger | None, cache: DiskCache | None, rng: random.Random
) -> list[Sample]:
    """Return a document's samples with an annotated or predicted entity, and `empty_samples` times as many others."""
    size, count = tagger.config.sample_words, len(document.tags)
    predicted = champion.extract(document.data.text, cache) if champion else []
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
