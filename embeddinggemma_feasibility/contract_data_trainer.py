"""Fine-tuning: annotations and the current champion in, a challenger out."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.encoders import Encoder, load_encoder
from embeddinggemma_feasibility.representations import Representation, RepresentationCache
from embeddinggemma_feasibility.span_crf import TAGS, forbid_orphans, negative_log_likelihood
from embeddinggemma_feasibility.tagger import Tagger, mean_sentences, normalise_layer
from embeddinggemma_feasibility.training_config import TrainingConfig
from embeddinggemma_feasibility.windows import EncodedDocument, Window, tag_words, words_between


class CollapsedModelError(RuntimeError):
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
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> FineTuning:
    """Return a challenger that has learned `annotations`, starting from the champion, which stays as it is.

    `replay` are earlier documents to be kept in mind. Without a champion a new tagger starts on `encoder` (default: the
    packaged one) with `config`. `on_step` is called with the step's number, the last step's and the step's loss.

    The head learns each time, on representations that the encoder has made once. The adapter has its turn when the
    number of documents learned has doubled, since the encoder must then read all documents again.

    Raises ValueError if nothing is marked and there is no champion, or if there are no words; CollapsedModelError if
    the result predicts nothing in documents where something is marked.
    """
    started = time.monotonic()
    types = sorted({span.type for document in [*annotations, *replay] for span in document.spans})
    if champion is None and not types:
        raise ValueError("Nothing is marked in these documents: a first model needs at least one annotation")
    if champion is None:
        tagger = Tagger(encoder or load_encoder(), types, config or TrainingConfig())
    else:
        tagger = champion.copy_with_types(types)
    chooser = random.Random(tagger.config.seed)  # noqa: S311  (the order of samples is no secret)
    tagger.usual_types = _list_usual_types([*annotations, *replay], tagger.types)
    losses: list[float] = []
    samples = _choose_samples(tagger, annotations, replay, champion, cache, chooser)
    if not samples:
        raise ValueError("There are no words in these documents to learn from")
    _start_biases(tagger, samples, 0 if champion is None else len(champion.types))
    losses += _train_head(tagger, samples, chooser, on_step)
    if _is_adapters_turn(tagger, len(annotations)):
        losses += _train_adapter(tagger, [*annotations, *replay], chooser)
        samples = _choose_samples(tagger, annotations, replay, champion, cache, chooser)
        losses += _train_head(tagger, samples, chooser, on_step)
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


def _start_biases(tagger: Tagger, samples: Sequence[_Sample], known: int) -> None:
    """Set the biases of the types from `known` on to the logarithms of their tags' frequencies."""
    tags = torch.cat([sample.document.tags[sample.words] for sample in samples])
    counts = torch.stack([(tags == tag).sum(0) + 1 for tag in range(TAGS)], dim=-1)
    log_frequencies = (counts / counts.sum(-1, keepdim=True)).log()
    with torch.no_grad():
        tagger.bias[known * TAGS :] = log_frequencies[known:].flatten()


def _train_head(
    tagger: Tagger, samples: Sequence[_Sample], chooser: random.Random, on_step: Callable[[int, int, float], None]
) -> Iterator[float]:
    """Train all but the adapter; yield each step's loss."""
    config = tagger.config
    groups: list[dict[str, Any]] = [
        {"params": [tagger.head], "lr": config.head_learning_rate},
        {"params": [tagger.lexical, tagger.bias, tagger.transitions], "lr": config.lexical_learning_rate},
    ]
    optimiser = AdamW(groups, weight_decay=0.0, fused=True)
    decay = LinearLR(optimiser, 1.0, 0.05, config.head_steps)
    tagger.train()
    epoch: list[float] = []
    queue: list[_Sample] = []
    for step in range(1, config.head_steps + 1):
        if not queue:
            if epoch and sum(epoch) / len(epoch) < config.enough_loss:
                break
            epoch, queue = [], chooser.sample(samples, len(samples))
        batch, queue = queue[: config.batch_samples], queue[config.batch_samples :]
        hidden = [sample.document.representation.hidden(sample.words) for sample in batch]
        features = [sample.document.representation.features[sample.words] for sample in batch]
        tags = [sample.document.tags[sample.words] for sample in batch]
        loss = _loss(tagger, hidden, features, tags, [sample.document.reviewed for sample in batch])
        _step(optimiser, loss)
        decay.step()
        epoch.append(loss.item())
        on_step(step, config.head_steps, epoch[-1])
        yield epoch[-1]
    tagger.eval()


def _loss(
    tagger: Tagger,
    hidden: Sequence[Tensor],
    features: Sequence[Tensor],
    tags: Sequence[Tensor],
    reviewed: Sequence[Tensor],
) -> Tensor:
    """Return the mean over samples of the sum over reviewed types of the negative log-likelihood."""
    lengths = torch.tensor([len(rows) for rows in hidden])
    emissions = tagger.emissions(torch.cat(list(hidden)), torch.cat(list(features)))
    losses = negative_log_likelihood(emissions, forbid_orphans(tagger.transitions), torch.cat(list(tags)), lengths)
    return (losses * torch.stack(list(reviewed))).sum() / len(lengths)


def _step(optimiser: Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _is_adapters_turn(tagger: Tagger, new_documents: int) -> bool:
    first, before = tagger.config.first_adaptation, tagger.documents_learned
    return (before // first).bit_length() != ((before + new_documents) // first).bit_length()


def _train_adapter(tagger: Tagger, documents: Sequence[AnnotationData], chooser: random.Random) -> Iterator[float]:
    """Train the adapter under the head as it is, on the encoder's windows with an entity; yield each step's loss."""
    config = tagger.config
    lessons = [lesson for data in documents for lesson in _list_telling_windows(tagger, data)]
    optimiser = AdamW(tagger.adapter_parameters(), lr=config.adapter_learning_rate, weight_decay=0.0)
    tagger.train()
    tagger.adapted.eval()  # its own dropout trebles a step's time; the head has dropout of its own
    for _ in range(config.adapter_steps):
        batch = chooser.sample(lessons, min(len(lessons), config.adapter_batch_windows))
        loss = _adapter_loss(tagger, batch)
        _step(optimiser, loss)
        yield loss.item()
    tagger.eval()


@dataclass(frozen=True, eq=False)
class _Lesson:
    """A window of the encoder, the words kept from it, their `tags` (words, types) and which types count."""

    document: EncodedDocument
    window: Window
    words: slice
    tags: Tensor
    reviewed: Tensor


def _list_telling_windows(tagger: Tagger, data: AnnotationData) -> Iterator[_Lesson]:
    document, reviewed = tagger.encode(data.text), _reviewed(tagger, data)
    tags = torch.from_numpy(tag_words(document.words, data.spans, tagger.types))
    for window in tagger.windows(document):
        words = words_between(document, window.keep_start, window.keep_end)
        if tags[words].any():
            yield _Lesson(document, window, words, tags[words], reviewed)


def _adapter_loss(tagger: Tagger, batch: Sequence[_Lesson]) -> Tensor:
    states = tagger.encode_windows(
        [lesson.document for lesson in batch], [lesson.window for lesson in batch], [lesson.words for lesson in batch]
    )
    hidden = []
    for lesson, (tokens, last) in zip(batch, states, strict=True):
        sentences = torch.from_numpy(lesson.document.sentences[lesson.words])
        sentences = sentences - sentences[0]
        hidden.append(torch.cat([normalise_layer(tokens), mean_sentences(last, sentences)[sentences]], dim=1))
    features = [torch.from_numpy(lesson.document.features[lesson.words]) for lesson in batch]
    return _loss(tagger, hidden, features, [lesson.tags for lesson in batch], [lesson.reviewed for lesson in batch])


def _check_alive(tagger: Tagger, taught: Sequence[AnnotationData], cache: RepresentationCache | None) -> None:
    marked = [data for data in taught if data.spans]
    if marked and not any(tagger.extract(data.text, cache) for data in marked):
        raise CollapsedModelError(
            f"The fine-tuned model finds nothing in {len(marked)} documents where reviewers marked entities. "
            "It is not registered; the champion stays."
        )
