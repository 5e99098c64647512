"""The samples of a fine-tuning: stretches of words, chosen from annotated documents."""

import random
from collections import Counter
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

_ENOUGH_OF_A_TYPE = 20  # documents
_LEAST_EMPTY = 50  # samples without an entity of the types, where there are several groups of types


@dataclass(frozen=True, eq=False)
class Sample:
    """Consecutive words of an annotated document.

    :param half: The document's half, 0 or 1.
    :param tags: Gold tag of each word for each type.
        Shape: (words, types)
    :param reviewed: 1 for each type that the document was reviewed for, else 0.
        Shape: (types,)
    """

    representation: Representation
    half: int
    tags: Tensor
    reviewed: Tensor


@dataclass(frozen=True)
class TrainingSamples:
    """The samples of new documents, and those replayed: each of these stands for `replayed_weight` earlier samples."""

    new: list[Sample]
    replayed: list[Sample]
    replayed_weight: float = 1.0

    def without_half(self, half: int) -> "TrainingSamples":
        """Return the samples of the documents in the other half."""
        new, replayed = ([sample for sample in some if sample.half != half] for some in (self.new, self.replayed))
        return replace(self, new=new, replayed=replayed)

    def limit(self, count: int, document_weight: float, rng: random.Random) -> "TrainingSamples":
        """Return at most so many of the new samples, to start from nothing with.

        Each of their documents stands for `document_weight` documents.
        """
        chosen = rng.sample(self.new, min(count, len(self.new)))
        return TrainingSamples([], chosen, document_weight * len(self.new) / len(chosen))

    def without_features(self) -> "TrainingSamples":
        """Return the samples without their lexical features, so that the lexical table learns nothing."""
        new, replayed = ([_remove_features(sample) for sample in some] for some in (self.new, self.replayed))
        return replace(self, new=new, replayed=replayed)

    def select_types(self, types: Sequence[str], chosen: Sequence[str]) -> "TrainingSamples":
        """Return the samples with tags of some of the types only; most samples without any of these are left out."""
        columns = torch.tensor([types.index(name) for name in chosen])

        def narrow(samples: Sequence[Sample]) -> list[Sample]:
            narrowed, empty = list[Sample](), list[Sample]()
            for sample in samples:
                of_types = replace(sample, tags=sample.tags[:, columns], reviewed=sample.reviewed[columns])
                (narrowed if of_types.tags.any() else empty).append(of_types)
            return narrowed + empty[:: max(1, len(empty) // max(2 * len(narrowed), _LEAST_EMPTY))]

        return replace(self, new=narrow(self.new), replayed=narrow(self.replayed))


def choose_documents(documents: Sequence[AnnotationData], count: int, rng: random.Random) -> list[AnnotationData]:
    """Return at most so many documents: for each type some with it, if there are any, and a random choice of the rest.

    The documents keep their order.
    """
    with_type, needed, others = Counter[str](), list[int](), list[int]()
    for index in rng.sample(range(len(documents)), len(documents)):
        types = {span.type for span in documents[index].spans}
        is_needed = any(with_type[name] < _ENOUGH_OF_A_TYPE for name in types)
        with_type.update(types if is_needed else ())
        (needed if is_needed else others).append(index)
    return [documents[index] for index in sorted([*needed, *others][:count])]


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
        return [sample for data in documents for sample in _cut(tagger, data, champion, cache, rng)]

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


def _cut(
    tagger: Tagger, data: AnnotationData, champion: Tagger | None, cache: DiskCache | None, rng: random.Random
) -> list[Sample]:
    """Return a document's samples with an annotated or predicted entity, and `empty_samples` times as many others."""
    representation = tagger.represent(data.text, cache)
    tags = torch.from_numpy(tag_words(representation.words.numpy(), data.spans, tagger.types))
    predicted = champion.extract(data.text, cache) if champion else []
    size, count = tagger.config.sample_words, len(tags)
    informative: list[slice] = []
    empty: list[slice] = []
    for first in range(0, count, size):
        words = slice(first, min(first + size, count))
        has_entity = bool(tags[words].any()) or _has_entity(representation, words, predicted)
        (informative if has_entity else empty).append(words)
    wanted = max(1, round(tagger.config.empty_samples * len(informative)))
    chosen = informative + rng.sample(empty, min(len(empty), wanted))
    half, reviewed = half_of(data.text), mask_reviewed(data, tagger.types)
    return [Sample(representation.cut(words), half, tags[words], reviewed) for words in chosen]


def _remove_features(sample: Sample) -> Sample:
    representation = replace(sample.representation, features=sample.representation.features[:, :0])
    return replace(sample, representation=representation)


def _has_entity(representation: Representation, words: slice, entities: Sequence[Entity]) -> bool:
    start, end = int(representation.words[words.start, 0]), int(representation.words[words.stop - 1, 1])
    return any(entity.start < end and entity.end > start for entity in entities)
