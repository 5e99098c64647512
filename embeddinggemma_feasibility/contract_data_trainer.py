"""Fine-tuning: annotations and the current champion in, a challenger out."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.encoders import Encoder, load_encoder
from embeddinggemma_feasibility.span_crf import TAGS, forbid_orphans, negative_log_likelihood
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig
from embeddinggemma_feasibility.windows import EncodedDocument, Window, tag_words, words_between


class CollapsedModelError(RuntimeError):
    """The fine-tuned model predicts nothing where its reviewers marked something."""


@dataclass(frozen=True)
class FineTuning:
    """A challenger and how it came about: `losses` holds the mean loss a window, in nats, of each optimiser step."""

    tagger: Tagger
    losses: tuple[float, ...]
    window_count: int
    seconds: float


@dataclass(frozen=True, eq=False)
class _Sample:
    """One window to learn: `words` of its document, their `tags` (words, types), `reviewed` (types,) as 0 or 1."""

    document: EncodedDocument
    window: Window
    words: slice
    tags: Tensor
    reviewed: Tensor


def fine_tune_model(
    annotations: Sequence[AnnotationData],
    champion: Tagger | None = None,
    replay: Sequence[AnnotationData] = (),
    encoder: Encoder | None = None,
    config: TrainingConfig | None = None,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> FineTuning:
    """Return a challenger that has learned `annotations`, starting from the champion, which stays as it is.

    `replay` are earlier documents to be kept in mind. Without a champion a new tagger starts on `encoder` (default: the
    packaged one) with `config`. `on_step` is called with the step's number, the last step's and the step's loss.

    Raises ValueError if nothing is marked and there is no champion, or if there are no words; CollapsedModelError if
    the result predicts nothing in documents where something is marked.
    """
    started = time.monotonic()
    types = sorted({span.type for document in annotations for span in document.spans})
    if champion is None and not types:
        raise ValueError("Nothing is marked in these documents: a first model needs at least one annotation")
    if champion is None:
        tagger = Tagger(encoder or load_encoder(), types, config or TrainingConfig())
    else:
        tagger = champion.copy_with_types(types)
    known = 0 if champion is None else len(champion.types)

    chooser = random.Random(tagger.config.seed)  # noqa: S311  (the order of windows is no secret)
    samples = [sample for document in annotations for sample in _choose_windows(tagger, document, champion, chooser)]
    replayed = [sample for document in replay for sample in _choose_windows(tagger, document, None, chooser)]
    samples += chooser.sample(replayed, min(len(replayed), max(len(samples), 4 * tagger.config.batch_windows)))
    if not samples:
        raise ValueError("There are no words in these documents to learn from")
    _start_biases(tagger, samples, known)
    losses = tuple(_optimise(tagger, samples, chooser, on_step))
    _check_alive(tagger, annotations)
    return FineTuning(tagger, losses, len(samples), time.monotonic() - started)


def _choose_windows(
    tagger: Tagger, data: AnnotationData, champion: Tagger | None, chooser: random.Random
) -> list[_Sample]:
    """Return every window with an entity or an error of the champion's, and for each some with neither."""
    document = tagger.encode(data.text)
    tags = torch.from_numpy(tag_words(document, data.spans, tagger.types))
    reviewed = torch.tensor([float(data.is_reviewed(name)) for name in tagger.types])
    predicted = champion.extract(data.text) if champion else []
    telling: list[_Sample] = []
    empty: list[_Sample] = []
    for window in tagger.windows(document):
        words = words_between(document, window.start, window.end)
        if words.start == words.stop:
            continue
        sample = _Sample(document, window, words, tags[words], reviewed)
        is_telling = bool(sample.tags.any()) or _has_entity(document, words, predicted)
        (telling if is_telling else empty).append(sample)
    wanted = max(1, round(tagger.config.empty_windows * len(telling)))
    return telling + chooser.sample(empty, min(len(empty), wanted))


def _has_entity(document: EncodedDocument, words: slice, entities: Sequence[Entity]) -> bool:
    start, end = document.words[words.start, 0], document.words[words.stop - 1, 1]
    return any(entity.start < end and entity.end > start for entity in entities)


def _start_biases(tagger: Tagger, samples: Sequence[_Sample], known: int) -> None:
    """Set the biases of the types from `known` on to the logarithms of their tags' frequencies."""
    tags = torch.cat([sample.tags for sample in samples])
    counts = torch.stack([(tags == tag).sum(0) + 1 for tag in range(TAGS)], dim=-1)
    log_frequencies = (counts / counts.sum(-1, keepdim=True)).log()
    with torch.no_grad():
        tagger.bias[known * TAGS :] = log_frequencies[known:].flatten()


def _optimise(
    tagger: Tagger, samples: Sequence[_Sample], chooser: random.Random, on_step: Callable[[int, int, float], None]
) -> Iterator[float]:
    config = tagger.config
    adapter = [parameter for parameter in tagger.adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": adapter, "lr": config.adapter_learning_rate},
            {"params": [tagger.head], "lr": config.head_learning_rate},
            {"params": [tagger.lexical, tagger.bias, tagger.transitions], "lr": config.lexical_learning_rate},
        ],
        weight_decay=0.0,
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, config.max_steps)
    tagger.train()
    tagger.adapted.eval()  # its own dropout trebles a step's time; the head has dropout of its own
    epoch: list[float] = []
    queue: list[_Sample] = []
    for step in range(1, config.max_steps + 1):
        if not queue:
            if epoch and sum(epoch) / len(epoch) < config.enough_loss:
                break
            epoch, queue = [], chooser.sample(samples, len(samples))
        batch, queue = queue[: config.batch_windows], queue[config.batch_windows :]
        loss = _loss(tagger, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        decay.step()
        epoch.append(loss.item())
        on_step(step, config.max_steps, epoch[-1])
        yield epoch[-1]
    tagger.eval()


def _loss(tagger: Tagger, batch: Sequence[_Sample]) -> Tensor:
    states = tagger.hidden_states([sample.document for sample in batch], [sample.window for sample in batch])
    hidden = [
        row[sample.document.piece_of_word[sample.words] - sample.window.start]
        for row, sample in zip(states, batch, strict=True)
    ]
    features = [torch.from_numpy(sample.document.features[sample.words]) for sample in batch]
    lengths = [len(rows) for rows in hidden]
    emissions = pad_sequence(
        list(torch.split(tagger.emissions(torch.cat(hidden), torch.cat(features)), lengths)), batch_first=True
    )
    tags = pad_sequence([sample.tags for sample in batch], batch_first=True)
    transitions = forbid_orphans(tagger.transitions)
    losses = negative_log_likelihood(emissions, transitions, tags, torch.tensor(lengths))
    return (losses * torch.stack([sample.reviewed for sample in batch])).sum() / len(batch)


def _check_alive(tagger: Tagger, annotations: Sequence[AnnotationData]) -> None:
    marked = [document for document in annotations if document.spans]
    if marked and not any(tagger.extract(document.text) for document in marked):
        raise CollapsedModelError(
            f"The fine-tuned model finds nothing in {len(marked)} documents where reviewers marked entities. "
            "It is not registered; the champion stays."
        )
