"""Fine-tuning: annotations and the current champion in, a challenger out."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embeddinggemma_feasibility.adapter_training import train_adapter
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.encoders import Encoder, load_encoder
from embeddinggemma_feasibility.head_training import train_head
from embeddinggemma_feasibility.samples import choose_samples
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig


class FineTuningError(ValueError):
    """No usable model results from these annotations; the message says why."""


class CollapsedModelError(FineTuningError):
    """The fine-tuned model predicts no entity in documents that have annotations."""


@dataclass(frozen=True)
class FineTuningResult:
    """A challenger and how it was trained; `losses` holds the mean loss of a sample, in nats, at each step."""

    tagger: Tagger
    losses: tuple[float, ...]
    sample_count: int
    seconds: float


def fine_tune_model(
    annotations: Sequence[AnnotationData],
    champion: Tagger | None = None,
    replay: Sequence[AnnotationData] = (),
    encoder: Encoder | None = None,
    config: TrainingConfig | None = None,
    cache: DiskCache | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> FineTuningResult:
    """Return a challenger that is the champion trained on `annotations`; the champion is not changed.

    `replay` holds earlier documents, so that they are not forgotten. Without a champion, a new tagger is built from
    `encoder` (default: the packaged one) and `config`. `on_progress` receives the finished share of the head's
    training.

    The head is trained each time, on representations that the encoder computes once. The adapter is retrained whenever
    the number of documents doubles, since the encoder must then compute all representations anew.

    Raises FineTuningError if there is neither an annotation nor a champion, or if the documents have no words;
    CollapsedModelError if the challenger predicts nothing in documents that have annotations.
    """
    started = time.monotonic()
    tagger = _build_challenger([*annotations, *replay], champion, encoder, config)
    rng = random.Random(tagger.config.seed)  # noqa: S311  (the order of samples is no secret)
    samples = choose_samples(tagger, annotations, replay, champion, cache, rng)
    if not samples:
        raise FineTuningError("These documents have no words to learn from")
    if champion is None:
        tagger.standardise([document.representation for document in dict.fromkeys(s.document for s in samples)])
    iterations = tagger.config.later_iterations if champion else tagger.config.first_iterations
    losses = train_head(tagger, samples, iterations, on_progress)
    if _should_train_adapter(tagger, len(annotations)):
        losses += train_adapter(tagger, [*annotations, *replay], rng)
        samples = choose_samples(tagger, annotations, replay, champion, cache, rng)
        losses += train_head(tagger, samples, tagger.config.first_iterations, on_progress)
    tagger.documents_learned += len(annotations)
    _check_predictions(tagger, annotations, cache)
    return FineTuningResult(tagger, tuple(losses), len(samples), time.monotonic() - started)


def _build_challenger(
    documents: Sequence[AnnotationData],
    champion: Tagger | None,
    encoder: Encoder | None,
    config: TrainingConfig | None,
) -> Tagger:
    """Return a copy of the champion, or a new tagger, that has all types of the documents."""
    types = sorted({span.type for data in documents for span in data.spans})
    if champion:
        tagger = champion.copy_with_types(types)
    elif types:
        tagger = Tagger(encoder or load_encoder(), types, config or TrainingConfig())
    else:
        raise FineTuningError("These documents have no annotations: a first model needs at least one annotation")
    tagger.common_types = _find_common_types(documents, tagger.types)
    return tagger


def _find_common_types(documents: Sequence[AnnotationData], types: Sequence[str]) -> frozenset[str]:
    """Return the types with an annotation in at least half of the documents that were reviewed for them."""
    reviewed = Counter(name for data in documents for name in types if data.is_reviewed(name))
    annotated = Counter(name for data in documents for name in {span.type for span in data.spans})
    return frozenset(name for name in types if annotated[name] and 2 * annotated[name] >= reviewed[name])


def _should_train_adapter(tagger: Tagger, new_documents: int) -> bool:
    """Return whether the number of documents reaches `first_adaptation` times a power of two."""
    first, before = tagger.config.first_adaptation, tagger.documents_learned
    return (before // first).bit_length() != ((before + new_documents) // first).bit_length()


def _check_predictions(tagger: Tagger, documents: Sequence[AnnotationData], cache: DiskCache | None) -> None:
    annotated = [data for data in documents if data.spans]
    if annotated and not any(tagger.extract(data.text, cache) for data in annotated):
        raise CollapsedModelError(
            f"The fine-tuned model finds nothing in {len(annotated)} documents with annotations. "
            "It is not registered; the champion stays."
        )
