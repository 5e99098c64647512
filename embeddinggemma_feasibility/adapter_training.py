"""The training of the adapter: through the encoder, by AdamW, with the head left as it is."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag
from torch.optim import AdamW

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.samples import mask_reviewed
from embeddinggemma_feasibility.tagger import Tagger, average_sentences, normalise_layer
from embeddinggemma_feasibility.training_batch import TrainingBatch
from embeddinggemma_feasibility.windows import EncodedDocument, Window, tag_words, words_between


def train_adapter(tagger: Tagger, documents: Sequence[AnnotationData], rng: random.Random) -> list[float]:
    """Train the adapter on the encoder's windows with an entity; return each step's mean loss of a window, in nats."""
    config = tagger.config
    windows = [window for data in documents for window in _list_training_windows(tagger, data)]
    optimiser = AdamW(tagger.add_adapter(), lr=config.adapter_learning_rate, weight_decay=0.0)
    tagger.eval()  # the encoder's dropout would triple a step's time
    losses = []
    for _ in range(config.adapter_steps):
        chosen = rng.sample(windows, min(len(windows), config.adapter_batch_windows))
        batch = _encode_batch(tagger, chosen)
        lexical = embedding_bag(batch.features, tagger.lexical, mode="sum")
        loss = batch.loss(tagger, {}, lexical, torch.ones(len(chosen))) / len(chosen)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return losses


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


def _list_training_windows(tagger: Tagger, data: AnnotationData) -> Iterator[_TrainingWindow]:
    """Return the document's windows with an annotated entity."""
    document, reviewed = tagger.encode(data.text), mask_reviewed(data, tagger.types)
    tags = torch.from_numpy(tag_words(document.words, data.spans, tagger.types))
    for window in tagger.windows(document):
        words = words_between(document, window.keep_start, window.keep_end)
        if tags[words].any():
            yield _TrainingWindow(document, window, words, tags[words], reviewed)


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
