"""The training of the adapter: through the encoder, by AdamW, without the lexical table."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.head_training import train_head
from embeddinggemma_feasibility.samples import choose_samples, mask_reviewed
from embeddinggemma_feasibility.tagger import Tagger, average_sentences, normalise_layer
from embeddinggemma_feasibility.training_batch import TrainingBatch
from embeddinggemma_feasibility.windows import EncodedDocument, Window, tag_words, words_between

_FIRST_HEAD_ITERATIONS = 20


def train_adapter(
    tagger: Tagger,
    documents: Sequence[AnnotationData],
    cache: DiskCache | None,
    rng: random.Random,
    on_progress: Callable[[float], None],
) -> None:
    """Train the adapter of a tagger that has learned nothing, and leave it without knowledge but with that adapter.

    The head is fitted first, without the lexical table, which would leave the encoder little to learn; then it learns
    along with the adapter. Of the encoder's windows, those with an entity are read, and one without for each.
    """
    config = tagger.config
    samples = choose_samples(tagger, documents, (), 0, None, cache, rng, lambda: on_progress(0))
    tagger.standardise([sample.representation for sample in samples.new])
    train_head(tagger, samples.without_features(), _FIRST_HEAD_ITERATIONS)
    windows = [window for data in documents for window in _choose_windows(tagger, data, rng)]
    batches = list(_split_epochs(windows, config.adapter_epochs, config.adapter_batch_windows, rng))
    parameters = [*tagger.add_adapter(), tagger.head, tagger.bias, tagger.transitions]
    optimiser = AdamW(parameters, lr=config.adapter_learning_rate, weight_decay=0.0)
    rising = max(1, round(config.adapter_warmup * len(batches)))
    schedule = LambdaLR(
        optimiser, lambda step: min((step + 1) / rising, (len(batches) - step) / max(1, len(batches) - rising))
    )
    tagger.eval()  # the encoder's dropout would triple a step's time
    for number, chosen in enumerate(batches, 1):
        batch = _encode_batch(tagger, chosen)
        no_lexical = torch.zeros(len(batch.tokens), len(tagger.bias))
        loss = batch.loss(tagger, {}, no_lexical, torch.ones(len(chosen))) / len(chosen)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        on_progress(number / len(batches))
    tagger.forget()


@dataclass(frozen=True, eq=False)
class _TrainingWindow:
    """A window of the encoder, and the words kept from it.

    :param tags: Gold tag of each word for each type.
        Shape: (words, types)
    :param reviewed: 1 for each type that the document was reviewed for, else 0.
        Shape: (types,)
    """

    document: EncodedDocument
    window: Window
    words: slice
    tags: Tensor
    reviewed: Tensor


def _choose_windows(tagger: Tagger, data: AnnotationData, rng: random.Random) -> list[_TrainingWindow]:
    """Return the document's windows with an annotated entity, and as many without, at least one."""
    document, reviewed = tagger.encode(data.text), mask_reviewed(data, tagger.types)
    tags = torch.from_numpy(tag_words(document.words, data.spans, tagger.types))
    marked, empty = list[_TrainingWindow](), list[_TrainingWindow]()
    for window in tagger.windows(document):
        words = words_between(document, window.keep_start, window.keep_end)
        if words.start < words.stop:
            of_window = marked if tags[words].any() else empty
            of_window.append(_TrainingWindow(document, window, words, tags[words], reviewed))
    return marked + rng.sample(empty, min(len(empty), max(1, len(marked))))


def _split_epochs(
    windows: Sequence[_TrainingWindow], epochs: float, size: int, rng: random.Random
) -> Iterator[list[_TrainingWindow]]:
    """Return batches of windows; each epoch has its own order."""
    left = round(epochs * len(windows))
    while left > 0:
        order = rng.sample(list(windows), len(windows))[:left]
        left -= len(order)
        yield from (order[first : first + size] for first in range(0, len(order), size))


def _encode_batch(tagger: Tagger, windows: Sequence[_TrainingWindow]) -> TrainingBatch:
    """Run the encoder on the windows, with gradients for the adapter."""
    outputs = tagger.encode_windows(
        [training.document for training in windows],
        [training.window for training in windows],
        [training.words for training in windows],
    )
    batches = []
    for training, (tokens, last) in zip(windows, outputs, strict=True):
        sentence_of_word = torch.from_numpy(training.document.sentences[training.words])
        sentence_of_word = sentence_of_word - sentence_of_word[0]
        batches.append(
            TrainingBatch(
                normalise_layer(tokens),
                average_sentences(last, sentence_of_word),
                sentence_of_word,
                features=torch.from_numpy(training.document.features[training.words]),
                tags=training.tags,
                lengths=torch.tensor([len(tokens)]),
                reviewed=training.reviewed[None],
            )
        )
    return TrainingBatch.concatenate(batches)
