"""Fine-tuning: annotations and the current champion in, a challenger out."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embeddinggemma_feasibility.adapter_training import train_adapter
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.encoders import Encoder, load_encoder
from embeddinggemma_feasibility.head_training import train_head
from embeddinggemma_feasibility.samples import TrainingSamples, choose_documents, choose_samples
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.trained_model import MAX_MEASUREMENTS, BlindTaggers, TrainedModel
from embeddinggemma_feasibility.training_config import TrainingConfig


class FineTuningError(ValueError):
    """No usable model results from these annotations; the message says why."""


class CollapsedModelError(FineTuningError):
    """The fine-tuned model predicts no entity in documents that have annotations."""


@dataclass(frozen=True)
class FineTuningResult:
    """A challenger, the annotations it learned, without the replayed ones, and how it was trained.

    `losses` holds the mean loss of a sample, in nats, at each step of the tagger that learns from all documents.
    """

    model: TrainedModel
    learned: tuple[AnnotationData, ...]
    losses: tuple[float, ...]
    sample_count: int
    seconds: float

    def describe(self) -> str:
        """Return how it was trained, in one sentence with numbers."""
        loss = f", with a loss from {self.losses[0]:.3f} to {self.losses[-1]:.3f}" if self.losses else ""
        return f"Trained in {self.seconds:.1f} s: {len(self.losses)} steps on {self.sample_count} samples{loss}."


def fine_tune_model(
    annotations: Sequence[AnnotationData],
    champion: TrainedModel | None = None,
    replay: Sequence[AnnotationData] = (),
    earlier_count: int = 0,
    measured: Sequence[AnnotationData] = (),
    encoder: Encoder | None = None,
    config: TrainingConfig | None = None,
    cache: DiskCache | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> FineTuningResult:
    """Return a challenger that is the champion trained on `annotations`; the champion is not changed.

    `replay` holds earlier documents, which stand for all `earlier_count` ones, so that they are not forgotten. The
    challenger is calibrated on `annotations` and on the `measured` ones of `replay`, each by the tagger that is blind
    to it. Without a champion, a new model is built from `encoder` (default: the packaged one) and `config`.
    `on_progress` receives the finished share of the training.

    Only the head is trained, on representations that the encoder computes once.

    Raises FineTuningError if there is neither an annotation nor a champion, or if the documents have no words;
    CollapsedModelError if the challenger predicts nothing in documents that have annotations.
    """
    started, documents = time.monotonic(), [*annotations, *replay]
    full = _start_full(documents, champion, encoder, config)
    rng = random.Random(full.config.seed)  # noqa: S311  (the order of samples is no secret)
    served = champion.served if champion else None
    samples = choose_samples(full, annotations, replay, earlier_count, served, cache, rng)
    if not samples.new:
        raise FineTuningError("These documents have no words to learn from")
    if champion is None:
        full.standardise([sample.representation for sample in samples.new])
    iterations = full.config.later_iterations if champion else full.config.first_iterations
    losses, blind = _train_heads(full, champion, samples, iterations, on_progress)
    measurements = champion.measurements if champion else {}
    document_count = len(annotations) + max(earlier_count, len(replay))
    model = TrainedModel.combine(full, blind, document_count, measurements, [*annotations, *measured], cache)
    _check_predictions(model.served, documents, cache)
    count = len(samples.new) + len(samples.replayed)
    return FineTuningResult(model, tuple(annotations), losses, count, time.monotonic() - started)


def consolidate_model(
    documents: Sequence[AnnotationData],
    champion: TrainedModel | None = None,
    encoder: Encoder | None = None,
    config: TrainingConfig | None = None,
    cache: DiskCache | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> FineTuningResult:
    """Return a model that is trained from nothing on all documents, the oldest first, until little changes.

    Of more than `consolidation_documents`, a choice stands for all. Types without an annotation are gone, and the
    newest documents calibrate the model. With `first_adaptation` spans, and each time they have doubled, the adapter is
    trained anew; in between, the champion's is kept.

    Raises as `fine_tune_model` does.
    """
    started = time.monotonic()
    start = _start_full(documents, None, encoder, config)
    rng = random.Random(start.config.seed)  # noqa: S311  (the order of samples is no secret)
    chosen = choose_documents(documents, start.config.consolidation_documents)
    span_count = sum(len(data.spans) for data in documents)
    full = _adapt(start, champion, span_count, chosen, cache, rng, lambda share: on_progress(share / 2))
    samples = choose_samples(full, chosen, (), 0, None, cache, rng, lambda: on_progress(0.5))
    if not samples.new:
        raise FineTuningError("These documents have no words to learn from")
    samples = samples.limit(full.config.consolidation_samples, len(documents) / len(chosen), rng)
    full.standardise([sample.representation for sample in samples.replayed])
    iterations = full.config.consolidation_iterations
    losses, blind = _train_heads(full, None, samples, iterations, lambda share: on_progress(0.5 + share / 2))
    measured = documents[-MAX_MEASUREMENTS:]
    model = TrainedModel.combine(full, blind, len(documents), {}, measured, cache, lambda: on_progress(1))
    _check_predictions(model.served, documents, cache)
    return FineTuningResult(model, tuple(chosen), losses, len(samples.replayed), time.monotonic() - started)


def _adapt(
    start: Tagger,
    champion: TrainedModel | None,
    span_count: int,
    chosen: Sequence[AnnotationData],
    cache: DiskCache | None,
    rng: random.Random,
    on_progress: Callable[[float], None],
) -> Tagger:
    """Return the tagger with the champion's adapter, or with one trained on the chosen documents if that is due.

    `span_count` is the number of spans in all documents.
    """
    adapted = champion.full.adapted_spans if champion else 0
    if span_count >= max(start.config.first_adaptation, 2 * adapted):
        train_adapter(start, chosen, cache, rng, on_progress)
        start.adapted_spans = span_count
    elif champion:
        return champion.full.copy_without_knowledge(start.types)
    return start


def _train_heads(
    full: Tagger,
    champion: TrainedModel | None,
    samples: TrainingSamples,
    iterations: int,
    on_progress: Callable[[float], None],
) -> tuple[tuple[float, ...], BlindTaggers]:
    """Train the tagger that learns from all documents, and both blind ones; return its losses, and those."""
    losses = train_head(full, samples, iterations, lambda share: on_progress(share / 2))
    first = _train_blind(0, full, champion, samples, iterations, lambda share: on_progress(0.5 + share / 4))
    second = _train_blind(1, full, champion, samples, iterations, lambda share: on_progress(0.75 + share / 4))
    on_progress(1)
    return tuple(losses), (first, second)


def _start_full(
    documents: Sequence[AnnotationData],
    champion: TrainedModel | None,
    encoder: Encoder | None,
    config: TrainingConfig | None,
) -> Tagger:
    """Return a copy of the champion's tagger that also has the documents' types, new ones last, or a new tagger."""
    types = sorted({span.type for data in documents for span in data.spans})
    if champion:
        known = champion.full.types
        return champion.full.copy_with_types([*known, *(name for name in types if name not in known)])
    if not types:
        raise FineTuningError("These documents have no annotations: a first model needs at least one annotation")
    return Tagger(encoder or load_encoder(), types, config or TrainingConfig())


def _train_blind(
    half: int,
    full: Tagger,
    champion: TrainedModel | None,
    samples: TrainingSamples,
    iterations: int,
    on_progress: Callable[[float], None],
) -> Tagger | None:
    """Return the tagger that learns from all documents but those of a half; None if there are none."""
    before = champion.blind[half] if champion else None
    seen = samples.without_half(half)
    if before:
        tagger = before.copy_with_types(full.types)
        if seen.new:
            train_head(tagger, seen, iterations, on_progress)
        return tagger
    if not seen.new and not seen.replayed:
        return None
    tagger = full.copy_without_knowledge(full.types)
    from_nothing = max(iterations, full.config.first_iterations)
    train_head(tagger, seen, from_nothing, on_progress)
    return tagger


def _check_predictions(tagger: Tagger, documents: Sequence[AnnotationData], cache: DiskCache | None) -> None:
    annotated = [data for data in documents if data.spans]
    if annotated and not any(tagger.extract(data.text, cache) for data in annotated):
        raise CollapsedModelError(
            f"The fine-tuned model finds nothing in {len(annotated)} documents with annotations. "
            "It is not registered; the champion stays."
        )
