"""Fine-tuning: annotations and the current champion in, a challenger out."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn.functional import embedding_bag
from torch.optim import LBFGS, AdamW

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.encoders import Encoder, load_encoder
from embeddinggemma_feasibility.representations import Representation, RepresentationCache
from embeddinggemma_feasibility.span_crf import forbid_orphans, negative_log_likelihood
from embeddinggemma_feasibility.tagger import Tagger, mean_sentences, normalise_layer
from embeddinggemma_feasibility.training_config import TrainingConfig
from embeddinggemma_feasibility.windows import EncodedDocument, Window, tag_words, words_between


class UnteachableError(ValueError):
    """The annotations make no model; the message says why."""


class CollapsedModelError(UnteachableError):
    """The fine-tuned model predicts nothing where its reviewers marked something."""


@dataclass(frozen=True)
class FineTuning:
    """A challenger and how it came about: `losses` holds the mean loss a sample, in nats, of each optimiser step."""

    tagger: Tagger
    losses: tuple[float, ...]
    sample_count: int
    seconds: float


@dataclass(frozen=True, eq=False)
class _Document:
    """A document to learn from, as the tagger represents it: `tags` (words, types), `reviewed` (types,) as 0 or 1."""

    data: AnnotationData
    representation: Representation
    tags: Tensor
    reviewed: Tensor


@dataclass(frozen=True, eq=False)
class _Sample:
    """Neighbouring words of a document, learned together."""

    document: _Document
    words: slice


def fine_tune_model(
    annotations: Sequence[AnnotationData],
    champion: Tagger | None = None,
    replay: Sequence[AnnotationData] = (),
    encoder: Encoder | None = None,
    config: TrainingConfig | None = None,
    cache: RepresentationCache | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> FineTuning:
    """Return a challenger that has learned `annotations`, starting from the champion, which stays as it is.

    `replay` are earlier documents to be kept in mind. Without a champion a new tagger starts on `encoder` (default: the
    packaged one) with `config`. `on_progress` is told the share of the head's training that is done.

    The head learns each time, on representations that the encoder has made once. The adapter has its turn when the
    number of documents learned has doubled, since the encoder must then read all documents again.

    Raises UnteachableError if nothing is marked and there is no champion, or if there are no words; of these
    CollapsedModelError if the result predicts nothing in documents where something is marked.
    """
    started = time.monotonic()
    types = sorted({span.type for document in [*annotations, *replay] for span in document.spans})
    if champion is None and not types:
        raise UnteachableError("Nothing is marked in these documents: a first model needs at least one annotation")
    if champion is None:
        tagger = Tagger(encoder or load_encoder(), types, config or TrainingConfig())
    else:
        tagger = champion.copy_with_types(types)
    chooser = random.Random(tagger.config.seed)  # noqa: S311  (the order of samples is no secret)
    tagger.usual_types = _list_usual_types([*annotations, *replay], tagger.types)
    losses: list[float] = []
    samples = _choose_samples(tagger, annotations, replay, champion, cache, chooser)
    if not samples:
        raise UnteachableError("There are no words in these documents to learn from")
    if champion is None:
        tagger.standardise([document.representation for document in dict.fromkeys(s.document for s in samples)])
    iterations = tagger.config.later_iterations if champion else tagger.config.first_iterations
    losses += _train_head(tagger, samples, iterations, on_progress)
    if _is_adapters_turn(tagger, len(annotations)):
        losses += _train_adapter(tagger, [*annotations, *replay], chooser)
        samples = _choose_samples(tagger, annotations, replay, champion, cache, chooser)
        losses += _train_head(tagger, samples, tagger.config.first_iterations, on_progress)
    tagger.documents_learned += len(annotations)
    _check_alive(tagger, annotations, cache)
    return FineTuning(tagger, tuple(losses), len(samples), time.monotonic() - started)


def _choose_samples(
    tagger: Tagger,
    annotations: Sequence[AnnotationData],
    replay: Sequence[AnnotationData],
    champion: Tagger | None,
    cache: RepresentationCache | None,
    chooser: random.Random,
) -> list[_Sample]:
    """Return what is to be learned of the new documents, and a share of the earlier ones that does not grow."""
    samples, earlier = (
        [sample for data in documents for sample in _cut(tagger, _represent(tagger, data, cache), predicting, chooser)]
        for documents, predicting in ((annotations, champion), (replay, None))
    )
    return samples + chooser.sample(earlier, min(len(earlier), tagger.config.replay_samples))


def _represent(tagger: Tagger, data: AnnotationData, cache: RepresentationCache | None) -> _Document:
    representation = tagger.represent(data.text, cache)
    tags = torch.from_numpy(tag_words(representation.words.numpy(), data.spans, tagger.types))
    return _Document(data, representation, tags, _reviewed(tagger, data))


def _reviewed(tagger: Tagger, data: AnnotationData) -> Tensor:
    return torch.tensor([float(data.is_reviewed(name)) for name in tagger.types])


def _list_usual_types(documents: Sequence[AnnotationData], types: Sequence[str]) -> frozenset[str]:
    """Return the types that at least half of the documents reviewed for them have."""
    reviewed = Counter(name for data in documents for name in types if data.is_reviewed(name))
    marked = Counter(name for data in documents for name in {span.type for span in data.spans})
    return frozenset(name for name in types if marked[name] and 2 * marked[name] >= reviewed[name])


def _cut(tagger: Tagger, document: _Document, champion: Tagger | None, chooser: random.Random) -> list[_Sample]:
    """Return every sample with an entity or an error of the champion's, and for each some with neither."""
    size, count = tagger.config.sample_words, len(document.tags)
    predicted = champion.extract_from(document.data.text, document.representation) if champion else []
    telling: list[_Sample] = []
    empty: list[_Sample] = []
    for first in range(0, count, size):
        words = slice(first, min(first + size, count))
        is_telling = bool(document.tags[words].any()) or _has_entity(document.representation, words, predicted)
        (telling if is_telling else empty).append(_Sample(document, words))
    wanted = max(1, round(tagger.config.empty_samples * len(telling)))
    return telling + chooser.sample(empty, min(len(empty), wanted))


def _has_entity(representation: Representation, words: slice, entities: Sequence[Entity]) -> bool:
    start, end = int(representation.words[words.start, 0]), int(representation.words[words.stop - 1, 1])
    return any(entity.start < end and entity.end > start for entity in entities)


@dataclass(frozen=True, eq=False)
class _Lesson:
    """Samples one after the other, all that the head sees of them.

    `tokens`, `sentences` and `sentence_of_word` as in `Tagger.emissions`; `features` (words, features); `tags` (words,
    types); `lengths` (samples,) in words; `reviewed` (samples, types) as 0 or 1.
    """

    tokens: Tensor
    sentences: Tensor
    sentence_of_word: Tensor
    features: Tensor
    tags: Tensor
    lengths: Tensor
    reviewed: Tensor

    def loss(self, tagger: Tagger, lexical: Tensor) -> Tensor:
        """Return the summed negative log-likelihood, in nats; `lexical` (words, 3 types) as in `Tagger.emissions`."""
        emissions = tagger.emissions(self.tokens, self.sentences, self.sentence_of_word, lexical)
        losses = negative_log_likelihood(emissions, forbid_orphans(tagger.transitions), self.tags, self.lengths)
        return (losses * self.reviewed).sum()


_Part = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _gather(samples: Sequence[_Sample]) -> _Lesson:
    return _join(
        (
            *sample.document.representation.encoded(sample.words),
            sample.document.representation.features[sample.words],
            sample.document.tags[sample.words],
            sample.document.reviewed,
        )
        for sample in samples
    )


def _join(parts: Iterable[_Part]) -> _Lesson:
    """Put samples one after the other; each has its `sentence_of_word` from 0, and `reviewed` (types,)."""
    tokens, sentences, sentence_of_word, features, tags, reviewed = zip(*parts, strict=True)
    offsets = accumulate((len(of_part) for of_part in sentences), initial=0)
    return _Lesson(
        torch.cat(tokens),
        torch.cat(sentences),
        torch.cat([of_part + offset for of_part, offset in zip(sentence_of_word, offsets, strict=False)]),
        torch.cat(features),
        torch.cat(tags),
        torch.tensor([len(rows) for rows in tokens]),
        torch.stack(reviewed),
    )


def _train_head(
    tagger: Tagger, samples: Sequence[_Sample], iterations: int, on_progress: Callable[[float], None]
) -> list[float]:
    """Train all but the adapter by L-BFGS (Liu and Nocedal, 1989); return the mean loss a sample before each step."""
    lesson = _gather(samples)
    rows, features = lesson.features.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    words, of_word = features.shape
    starts = range(0, words * of_word + 1, of_word)
    counts = csr_matrix((np.ones(words * of_word, np.float32), features.flatten(), starts), (words, len(rows)))
    lexical = tagger.lexical.detach()[rows].requires_grad_()
    weights = [lexical, tagger.head, tagger.transitions]
    optimiser = LBFGS(
        [*weights, tagger.bias], max_iter=iterations, max_eval=2 * iterations, line_search_fn="strong_wolfe"
    )
    losses: list[float] = []

    def evaluate_loss() -> Tensor:
        optimiser.zero_grad()
        loss = lesson.loss(tagger, _SparseProduct.apply(lexical, counts))  # type: ignore[no-untyped-call]
        losses.append(loss.item() / len(samples))
        loss = loss + tagger.config.l2 / 2 * sum(weight.square().sum() for weight in weights)
        loss.backward()  # type: ignore[no-untyped-call]
        on_progress(min(1.0, len(losses) / iterations))
        return loss

    optimiser.step(evaluate_loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        tagger.lexical[rows] = lexical
    return losses


class _SparseProduct(torch.autograd.Function):
    """What `embedding_bag` gives, with a gradient six times as fast: scipy's sparse matrix times a dense one."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, counts: csr_matrix) -> Tensor:
        ctx.counts = counts
        return torch.from_numpy(counts @ table.detach().numpy())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.counts.T @ gradients[0].numpy()), None


def _is_adapters_turn(tagger: Tagger, new_documents: int) -> bool:
    first, before = tagger.config.first_adaptation, tagger.documents_learned
    return (before // first).bit_length() != ((before + new_documents) // first).bit_length()


def _train_adapter(tagger: Tagger, documents: Sequence[AnnotationData], chooser: random.Random) -> Iterator[float]:
    """Train the adapter under the head as it is, on the encoder's windows with an entity; yield each step's loss."""
    config = tagger.config
    windows = [window for data in documents for window in _list_telling_windows(tagger, data)]
    optimiser = AdamW(tagger.add_adapter(), lr=config.adapter_learning_rate, weight_decay=0.0)
    tagger.eval()  # its own dropout trebles a step's time
    for _ in range(config.adapter_steps):
        batch = chooser.sample(windows, min(len(windows), config.adapter_batch_windows))
        lesson = _encode_lesson(tagger, batch)
        loss = lesson.loss(tagger, embedding_bag(lesson.features, tagger.lexical, mode="sum")) / len(batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield loss.item()


@dataclass(frozen=True, eq=False)
class _TellingWindow:
    """A window of the encoder, the words kept from it, their `tags` (words, types) and which types count."""

    document: EncodedDocument
    window: Window
    words: slice
    tags: Tensor
    reviewed: Tensor


def _list_telling_windows(tagger: Tagger, data: AnnotationData) -> Iterator[_TellingWindow]:
    document, reviewed = tagger.encode(data.text), _reviewed(tagger, data)
    tags = torch.from_numpy(tag_words(document.words, data.spans, tagger.types))
    for window in tagger.windows(document):
        words = words_between(document, window.keep_start, window.keep_end)
        if tags[words].any():
            yield _TellingWindow(document, window, words, tags[words], reviewed)


def _encode_lesson(tagger: Tagger, batch: Sequence[_TellingWindow]) -> _Lesson:
    """Return what the head sees of some windows, through which a gradient reaches the adapter."""
    states = tagger.encode_windows(
        [telling.document for telling in batch],
        [telling.window for telling in batch],
        [telling.words for telling in batch],
    )
    parts: list[_Part] = []
    for telling, (tokens, last) in zip(batch, states, strict=True):
        sentence_of_word = torch.from_numpy(telling.document.sentences[telling.words])
        sentence_of_word = sentence_of_word - sentence_of_word[0]
        sentences = mean_sentences(last, sentence_of_word)
        features = torch.from_numpy(telling.document.features[telling.words])
        parts.append((normalise_layer(tokens), sentences, sentence_of_word, features, telling.tags, telling.reviewed))
    return _join(parts)


def _check_alive(tagger: Tagger, taught: Sequence[AnnotationData], cache: RepresentationCache | None) -> None:
    marked = [data for data in taught if data.spans]
    if marked and not any(tagger.extract(data.text, cache) for data in marked):
        raise CollapsedModelError(
            f"The fine-tuned model finds nothing in {len(marked)} documents where reviewers marked entities. "
            "It is not registered; the champion stays."
        )
