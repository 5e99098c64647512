"""The samples of a fine-tuning: stretches of words, chosen from annotated documents."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.halves import half_of
from embeddinggemma_feasibility.representations import Representation
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.windows import tag_words

_ENOUGH_OF_A_TYPE = 20
_LEAST_EMPTY = 50  # samples without an entity of the types, where there are several groups of types

_Item = TypeVar("_Item")


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
        """Return at most so many of the new samples, those of rare types first, to start from nothing with.

        Each of their documents stands for `document_weight` documents.
        """
        shuffled = rng.sample(self.new, len(self.new))
        chosen = _take_rare_first(
            shuffled, [sample.tags.any(0).nonzero().flatten().tolist() for sample in shuffled], count
        )
        return TrainingSamples([], chosen, document_weight * len(self.new) / max(1, len(chosen)))

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


def choose_documents(documents: Sequence[AnnotationData], count: int) -> list[AnnotationData]:
    """Return at most so many documents, in their order: up to 20 with each type, then a random choice of the others.

    So rare types are over-represented. The order is that of the ids' hashes, so that the choice changes little as more
    documents come.
    """
    by_hash = sorted(documents, key=lambda data: hashlib.sha256(data.document_id.encode()).digest())
    chosen = _take_rare_first(by_hash, [{span.type for span in data.spans} for data in by_hash], count)
    taken = {data.document_id for data in chosen}
    return [data for data in documents if data.document_id in taken]


def _take_rare_first(items: Sequence[_Item], types: Iterable[Collection[Hashable]], count: int) -> list[_Item]:
    """Return at most so many items: the first one with each type, then the second one, up to the twentieth.

    The others follow in their order. `types` holds the distinct types of each item.
    """
    with_type = Counter[Hashable]()
    ranks = []
    for of_item in types:
        ranks.append(min((with_type[name] for name in of_item), default=_ENOUGH_OF_A_TYPE))
        with_type.update(of_item)
    order = sorted(range(len(items)), key=lambda index: min(ranks[index], _ENOUGH_OF_A_TYPE))
    return [items[index] for index in order[:count]]


def choose_samples(
    tagger: Tagger,
    annotations: Sequence[AnnotationData],
    replay: Sequence[AnnotationData],
    earlier_count: int,
    champion: Tagger | None,
    cache: DiskCache | None,
    rng: random.Random,
    before_document: Callable[[], None] = lambda: None,
) -> TrainingSamples:
    """Return the samples of the new documents, and at most `replay_samples` of the replayed documents.

    Of each document these are all samples with an entity, or with one that the champion finds, and some without.
    `earlier_count` is the number of earlier documents, for which those of `replay` stand.
    """

    def cut(documents: Sequence[AnnotationData], champion: Tagger | None) -> list[Sample]:
        samples = list[Sample]()
        for data in documents:
            before_document()
            samples += _cut(tagger, data, champion, cache, rng)
        return samples

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
