"""Other systems to compare with, each retrained on all documents so far: a CRF, the Hugging Face Trainer, spaCy.

All learn from the same choice of samples: every one with an entity, and for each of those two without.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Protocol, TypeVar

import numpy as np
import spacy
import torch
from numpy.typing import NDArray
from pycrfsuite import ItemSequence
from sklearn_crfsuite import CRF
from spacy.language import Language
from spacy.training import Example
from spacy.util import filter_spans
from thinc.api import fix_random_seed
from transformers import (
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.encoders import has_bfloat16, load_encoder
from embeddinggemma_feasibility.lexical import IntArray, split_words
from embeddinggemma_feasibility.packaged_encoder import LAYERS, read_packaged_encoder
from embeddinggemma_feasibility.windows import encode_document, split_windows, touched_words, words_between

Predictor = Callable[[str], list[Entity]]
FloatArray = NDArray[np.float32]
T = TypeVar("T")

_BLOCK_WORDS = 100
_EMPTY_PER_MARKED = 2
_OUTSIDE = "O"


class Peer(Protocol):
    """A system to compare with."""

    name: ClassVar[str]

    def train(self, documents: Sequence[AnnotationData]) -> Predictor:
        """Train on these documents only; return a function that finds the entities of a text."""
        ...


@dataclass(frozen=True)
class CrfPeer:
    """A linear-chain CRF (Lafferty et al., 2001) for each type, since spans of different types overlap.

    c1, c2 and the number of iterations are those of sklearn-crfsuite's tutorial on CoNLL 2002.
    """

    name: ClassVar[str] = "CRF"

    def train(self, documents: Sequence[AnnotationData]) -> Predictor:
        items: list[ItemSequence] = []
        tags: dict[str, list[list[str]]] = {span.type: [] for document in documents for span in document.spans}
        for document in documents:
            words = split_words(document.text)
            features, blocks = word_features(document.text, words), choose_blocks(document, words)
            items += [ItemSequence(features[block]) for block in blocks]
            for name, of_type in tags.items():
                tagged = tag_words(words, [span for span in document.spans if span.type == name])
                of_type += [tagged[block] for block in blocks]
        chains = [_new_chain().fit(items, of_type) for of_type in tags.values()]

        def predict(text: str) -> list[Entity]:
            words = split_words(text)
            whole = ItemSequence(word_features(text, words))
            return [entity for chain in chains for entity in read_tags(text, words, chain.predict_single(whole))]

        return predict


@dataclass(frozen=True)
class TrainerPeer:
    """The packaged encoder with all its layers, fully fine-tuned by the Hugging Face Trainer with one label per token.

    Label Studio's `huggingface_ner` backend trains in the same way and with the same batch size, but only on the first
    pieces of each text and with one learning rate. Here windows cover the whole text, one Viterbi pass decodes all its
    tags, and the new head has a higher learning rate than the encoder: with one rate for both, a model trained on ten
    contracts predicted O everywhere.
    """

    name: ClassVar[str] = "Trainer"

    window_pieces: ClassVar[int] = 128
    overlap: ClassVar[int] = 32
    batch_windows: ClassVar[int] = 8
    steps: ClassVar[int] = 400
    encoder_learning_rate: ClassVar[float] = 3e-4
    head_learning_rate: ClassVar[float] = 3e-3

    def train(self, documents: Sequence[AnnotationData]) -> Predictor:
        set_seed(0)
        types = sorted({span.type for document in documents for span in document.spans})
        labels = [_OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in "BI")]
        model = build_classifier(dict(enumerate(labels)))
        self._fine_tune(model, [sample for document in documents for sample in self._samples(document, labels)])

        def predict(text: str) -> list[Entity]:
            words = split_words(text)
            return read_tags(text, words, best_tags(self._scores(model, text, words), labels))

        return predict

    def _fine_tune(self, model: PreTrainedModel, samples: list[dict[str, list[int]]]) -> None:
        parameters = dict(model.named_parameters())
        head = [parameters.pop(name) for name in ("classifier.weight", "classifier.bias")]
        groups = [
            {"params": list(parameters.values()), "lr": self.encoder_learning_rate},
            {"params": head, "lr": self.head_learning_rate},
        ]
        trainer = Trainer(
            model,
            self._arguments(),
            DataCollatorForTokenClassification(load_encoder().tokenizer),
            samples,
            optimizers=(torch.optim.AdamW(groups), None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    def _arguments(self) -> TrainingArguments:
        return TrainingArguments(
            lr_scheduler_type="linear",
            warmup_steps=0.1,
            max_steps=self.steps,
            per_device_train_batch_size=self.batch_windows,
            bf16=has_bfloat16(),
            use_cpu=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

    def _windows(self, text: str, overlap: int) -> Iterator[tuple[list[int], dict[int, int]]]:
        """Yield each window's pieces and, for each word that begins in it, the index of the word's first piece."""
        encoder = load_encoder()
        before, after = encoder.special_pieces
        document = encode_document(text, encoder.tokenizer, buckets=1)
        size = self.window_pieces - len(before) - len(after)
        for window in split_windows(len(document.pieces), size, overlap):
            words = words_between(document, window.start, window.end)
            first_pieces = document.piece_of_word[words] - window.start + len(before)
            pieces = [*before, *document.pieces[window.start : window.end].tolist(), *after]
            yield pieces, dict(zip(range(words.start, words.stop), first_pieces.tolist(), strict=True))

    def _samples(self, document: AnnotationData, labels: list[str]) -> list[dict[str, list[int]]]:
        words = split_words(document.text)
        label_of_word = [labels.index(tag) for tag in tag_words(words, document.spans)]
        samples = []
        for pieces, piece_of_word in self._windows(document.text, overlap=0):
            label_of_piece = {piece: label_of_word[word] for word, piece in reversed(piece_of_word.items())}
            of_window = [label_of_piece.get(piece, -100) for piece in range(len(pieces))]
            samples.append({"input_ids": pieces, "labels": of_window})
        return sample_marked(samples, lambda sample: max(sample["labels"]) > 0)

    @torch.inference_mode()
    def _scores(self, model: PreTrainedModel, text: str, words: IntArray) -> FloatArray:
        """Return log-probabilities of shape (words, labels), summed where windows overlap."""
        model.train(mode=False)
        scores = torch.zeros(len(words), len(model.config.id2label or ()))
        windows = list(self._windows(text, self.overlap)) if len(words) else []
        for first in range(0, len(windows), self.batch_windows):
            some = windows[first : first + self.batch_windows]
            batch = load_encoder().tokenizer.pad({"input_ids": [pieces for pieces, _ in some]}, return_tensors="pt")
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                logits = model(**batch).logits.float()
            for row, (_, piece_of_word) in zip(logits.log_softmax(-1), some, strict=True):
                scores[list(piece_of_word)] += row[list(piece_of_word.values())]
        return scores.numpy()


def build_classifier(labels: dict[int, str]) -> BertForTokenClassification:
    """Return the packaged encoder with all its layers under transformers' own head for `labels`, in evaluation mode."""
    encoder, _ = read_packaged_encoder(LAYERS)
    encoder.config.id2label = labels
    model = BertForTokenClassification(encoder.config)
    model.bert = encoder
    model.train(mode=False)
    return model


@dataclass(frozen=True)
class SpacyPeer:
    """spaCy's `ner` component on hashed embeddings and a CNN, with the defaults of `add_pipe`."""

    name: ClassVar[str] = "spaCy"
    batch_blocks: ClassVar[int] = 4
    epochs: ClassVar[int] = 30
    steps: ClassVar[tuple[int, int]] = (400, 2000)
    language: str = "xx"

    def train(self, documents: Sequence[AnnotationData]) -> Predictor:
        fix_random_seed(0)
        nlp = spacy.blank(self.language)
        nlp.add_pipe("ner")
        examples = [example for document in documents for example in _spacy_examples(nlp, document)]
        optimiser = nlp.initialize(lambda: examples)
        rng = random.Random(0)
        queue: list[Example] = []
        for _ in range(count_steps(len(examples), self.batch_blocks, self.epochs, self.steps)):
            queue = queue or rng.sample(examples, len(examples))
            nlp.update(queue[: self.batch_blocks], sgd=optimiser, drop=0.2)
            queue = queue[self.batch_blocks :]

        def predict(text: str) -> list[Entity]:
            found = nlp(text).ents
            return [Entity(span.label_, span.text, span.start_char, span.end_char, 1.0) for span in found]

        return predict


def count_steps(samples: int, batch: int, epochs: int, limits: tuple[int, int]) -> int:
    """Return the number of steps in these epochs, clipped to `limits`."""
    return max(limits[0], min(limits[1], epochs * -(-samples // batch)))


def sample_marked(samples: Sequence[T], has_entity: Callable[[T], bool]) -> list[T]:
    """Return all samples of a document with an entity and, for each, two random ones without; at least one of those."""
    marked = [sample for sample in samples if has_entity(sample)]
    empty = [sample for sample in samples if not has_entity(sample)]
    wanted = max(1, _EMPTY_PER_MARKED * len(marked))
    return marked + random.Random(0).sample(empty, min(len(empty), wanted))


def choose_blocks(document: AnnotationData, words: IntArray) -> list[slice]:
    """Return the blocks of about 100 words to learn from; none begins inside a span."""
    marked, inside = np.zeros((2, len(words) + 1), dtype=bool)
    for span in document.spans:
        place = touched_words(words, span)
        marked[place] = True
        inside[place.start + 1 : place.stop] = True
    allowed = np.flatnonzero(~inside)
    wanted = np.arange(0, len(words), _BLOCK_WORDS)
    edges = np.unique([*allowed[np.searchsorted(allowed, wanted)], len(words)]).tolist()
    blocks = [slice(start, stop) for start, stop in pairwise(edges)]
    return sample_marked(blocks, lambda block: bool(marked[block].any()))


def tag_words(words: IntArray, spans: Iterable[Span]) -> list[str]:
    """Return one tag per word, O, B-type or I-type; of overlapping spans the longest wins."""
    tags = [_OUTSIDE] * len(words)
    for span in sorted(spans, key=lambda span: span.start - span.end):
        place = touched_words(words, span)
        if set(tags[place]) == {_OUTSIDE}:
            tags[place] = [f"B-{span.type}"] + [f"I-{span.type}"] * (place.stop - place.start - 1)
    return tags


def read_tags(text: str, words: IntArray, tags: Sequence[str]) -> list[Entity]:
    """Return the entities that the tags encode; an I without a B begins one, as in CoNLL's scoring."""
    spans: list[Span] = []
    before = ""
    for (start, end), tag in zip(words.tolist(), tags, strict=True):
        type_name = tag[2:]
        if type_name and tag[0] == "I" and type_name == before:
            spans[-1] = replace(spans[-1], end=end)
        elif type_name:
            spans.append(Span(start, end, type_name))
        before = type_name
    return [Entity(span.type, text[span.start : span.end], span.start, span.end, 1.0) for span in spans]


def best_tags(scores: FloatArray, labels: Sequence[str]) -> list[str]:
    """Return the likeliest tags (Viterbi) in which each I follows a B or I of its type; `scores` is (words, labels)."""
    if not len(scores):
        return []
    follows = [[label[0] != "I" or label[2:] == before[2:] for label in labels] for before in labels]
    steps = np.where(follows, 0, -np.inf)
    best = scores[0] + steps[labels.index(_OUTSIDE)]
    sources = []
    for row in scores[1:]:
        ways = best[:, None] + steps
        sources.append(ways.argmax(0))
        best = ways.max(0) + row
    path = [int(best.argmax())]
    for source in reversed(sources):
        path.append(int(source[path[-1]]))
    return [labels[index] for index in reversed(path)]


def word_features(text: str, words: IntArray) -> list[list[str]]:
    """Return each word's features for a CRF: the word, its neighbours up to two words away, pairs, position."""
    values = [text[start:end] for start, end in words]
    lowers = ["", "", *(value.lower() for value in values), "", ""]
    shapes = ["", "", *(_shape(value) for value in values), "", ""]
    gaps = [text[end:start] for end, start in zip([0, *words[:, 1]], words[:, 0], strict=False)]
    rows = []
    for index, (value, gap) in enumerate(zip(values, gaps, strict=True)):
        near, near_shapes = lowers[index : index + 5], shapes[index : index + 5]
        rows.append(
            [
                "bias",
                *_own_features(value),
                *(f"l{distance}={word}" for distance, word in enumerate(near, -2)),
                *(f"s{distance}={shape}" for distance, shape in enumerate(near_shapes, -2)),
                *(f"ll{distance}={'|'.join(pair)}" for distance, pair in enumerate(pairwise(near), -2)),
                *(f"ss{distance}={'|'.join(pair)}" for distance, pair in enumerate(pairwise(near_shapes), -2)),
                f"line={index == 0 or chr(10) in gap}",
                f"sentence={lowers[index + 1] in set('.?!;:')}",
                f"place={len(str(index // 25))}",
            ]
        )
    return rows


def _own_features(value: str) -> tuple[str, ...]:
    lower = value.lower()
    return (
        f"w={value}",
        *(f"p{length}={lower[:length]}" for length in (1, 2, 3)),
        *(f"e{length}={lower[-length:]}" for length in (1, 2, 3)),
        f"digits={len(value) if value.isdigit() else 0}",
        f"title={value.istitle()}",
        f"upper={value.isupper()}",
    )


def _shape(value: str) -> str:
    """Return a word's shape as in Finkel et al. (2005): Xxxxx for Party, 99 for 17; runs are cut to four."""
    shape = "".join("X" if c.isupper() else "x" if c.islower() else "9" if c.isdigit() else c for c in value)
    return re.sub(r"(.)\1{4,}", r"\1\1\1\1", shape)


def _new_chain() -> CRF:
    return CRF("lbfgs", c1=0.1, c2=0.1, max_iterations=100, all_possible_transitions=True)


def _spacy_examples(nlp: Language, document: AnnotationData) -> list[Example]:
    words = split_words(document.text)
    examples = []
    for block in choose_blocks(document, words):
        start, end = int(words[block.start, 0]), int(words[block.stop - 1, 1])
        gold = nlp.make_doc(document.text[start:end])
        spans = [
            gold.char_span(span.start - start, span.end - start, span.type, alignment_mode="expand")
            for span in document.spans
            if start <= span.start and span.end <= end
        ]
        gold.ents = filter_spans(span for span in spans if span)
        examples.append(Example(nlp.make_doc(gold.text), gold))
    return examples
