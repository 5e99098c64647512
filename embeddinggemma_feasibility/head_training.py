"""The training of the head: all weights of a tagger but the adapter's, by L-BFGS."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.optim import LBFGS

from embeddinggemma_feasibility.samples import TrainingSamples
from embeddinggemma_feasibility.span_crf import SCORED_TAGS
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_batch import TrainingBatch

_TYPES_AT_ONCE = 16  # bounds the memory; types share no weights, so they can be trained one after the other
_CURVATURE = 0.003  # roughly the second derivative of a word's loss with respect to a score: most words are certain
_HISTORY = 20


class _Weights(NamedTuple):
    """All that is trained: the rows of the lexical table that the samples use, the head, transitions and bias."""

    lexical: Tensor
    head: Tensor
    transitions: Tensor
    bias: Tensor


def train_head(
    tagger: Tagger, samples: TrainingSamples, iterations: int, on_progress: Callable[[float], None] = lambda share: None
) -> list[float]:
    """Minimise the L2-regularised loss of all documents, from the tagger's weights, by L-BFGS (Liu and Nocedal, 1989).

    The replayed samples stand for all earlier ones, so each is weighted. Where they are not all and there are new ones,
    a linear term makes the tagger's weights the optimum of the replayed samples' loss, since they are that of all
    earlier ones (the surrogate of DANE, Shamir et al., 2014): the step that remains is due to the new samples.

    Returns the mean loss of a sample, in nats, at each evaluation. Rows of the lexical table that no sample uses stay
    as they are.
    """
    losses: list[float] = []
    groups = [tagger.types[first : first + _TYPES_AT_ONCE] for first in range(0, len(tagger.types), _TYPES_AT_ONCE)]
    for number, types in enumerate(groups):
        part = tagger.copy_with_types(types)
        problem = _Problem(part, samples if len(groups) == 1 else samples.select_types(tagger.types, types))
        losses += problem.minimise(iterations, partial(_report, on_progress, number, len(groups)))
        tagger.take_types(part)
    return losses


def _report(on_progress: Callable[[float], None], done: int, groups: int, share: float) -> None:
    on_progress((done + share) / groups)


class _Problem:
    """The loss of some samples as a function of a tagger's weights."""

    def __init__(self, tagger: Tagger, samples: TrainingSamples) -> None:
        self._tagger, self._samples = tagger, samples
        self._batch = TrainingBatch.of_samples([*samples.new, *samples.replayed])
        self._rows, self._counts = _count_features(self._batch.features)
        self._transposed = self._counts.T.tocsr()
        new, replayed = torch.ones(len(samples.new)), torch.full((len(samples.replayed),), samples.replayed_weight)
        self._sample_weights = torch.cat([new, replayed])
        self._type_weights = self._sample_weights[:, None] * self._batch.reviewed  # (samples, types)
        self._l2 = (tagger.config.l2_of_sample * self._type_weights.sum(0)).clamp(min=tagger.config.l2)  # (types,)

    def minimise(self, iterations: int, on_progress: Callable[[float], None]) -> list[float]:
        """Change the tagger's weights; return the mean loss at each evaluation."""
        start, scales = self._read_weights(), self._scale_weights()
        stands_for_more = self._samples.new and self._samples.replayed_weight > 1
        linear_term = self._differentiate_replayed(start) if stands_for_more else None
        scaled = [(weight / scale).requires_grad_() for weight, scale in zip(start, scales, strict=True)]
        optimiser = LBFGS(
            scaled, max_iter=iterations, max_eval=2 * iterations, history_size=_HISTORY, line_search_fn="strong_wolfe"
        )
        losses: list[float] = []

        def evaluate() -> Tensor:
            optimiser.zero_grad()
            weights = _Weights(*(part * scale for part, scale in zip(scaled, scales, strict=True)))
            loss, data_loss = self._loss(weights, self._sample_weights)
            if linear_term:
                loss = loss - sum((slope * weight).sum() for slope, weight in zip(linear_term, weights, strict=True))
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(data_loss.item() / float(self._sample_weights.sum()))
            on_progress(min(1.0, len(losses) / iterations))
            return loss

        optimiser.step(evaluate)  # type: ignore[no-untyped-call]
        self._write_weights(_Weights(*(part.detach() * scale for part, scale in zip(scaled, scales, strict=True))))
        return losses

    def _loss(self, weights: _Weights, sample_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss with and without the penalty, in nats, summed over the samples."""
        lexical = _SparseProduct.apply(weights.lexical, self._counts, self._transposed)  # type: ignore[no-untyped-call]
        parameters = {"head": weights.head, "transitions": weights.transitions, "bias": weights.bias}
        data_loss = self._batch.loss(self._tagger, parameters, lexical, sample_weights)
        of_tag = self._l2.repeat_interleave(SCORED_TAGS)
        penalty = (of_tag * weights.lexical.square()).sum() + (of_tag * weights.head.square()).sum()
        penalty = penalty + (self._l2 * weights.transitions.square().sum((1, 2))).sum()
        return data_loss + penalty / 2, data_loss

    def _differentiate_replayed(self, start: _Weights) -> _Weights:
        """Return the gradient of the replayed samples' regularised loss at the tagger's weights.

        It is zero for new types: the tagger's weights are not the optimum of theirs.
        """
        weights = _Weights(*(weight.clone().requires_grad_() for weight in start))
        of_replayed = self._sample_weights.clone()
        of_replayed[: len(self._samples.new)] = 0
        loss, _ = self._loss(weights, of_replayed)
        is_old = self._tagger.has_learned()
        old_tags = is_old.repeat_interleave(SCORED_TAGS)
        slopes = _Weights(*torch.autograd.grad(loss, list(weights)))
        return _Weights(
            lexical=slopes.lexical * old_tags,
            head=slopes.head * old_tags,
            transitions=slopes.transitions * is_old[:, None, None],
            bias=slopes.bias * old_tags,
        )

    def _scale_weights(self) -> _Weights:
        """Return the unit of each weight: the inverse square root of its curvature, so that all move alike.

        Only words of documents that were reviewed for a type add to the curvature of its weights.
        """
        of_words = self._type_weights.repeat_interleave(self._batch.lengths, 0)
        words, by_row = of_words.sum(0), torch.from_numpy(self._transposed @ of_words.numpy())
        of_type = _Weights(
            lexical=_CURVATURE * by_row + self._l2,
            head=_CURVATURE * words * self._tagger.config.encoder_scale**2 + self._l2,
            transitions=_CURVATURE * words[:, None, None] + self._l2[:, None, None],
            bias=_CURVATURE * words + self._l2,
        )
        return _Weights(
            lexical=of_type.lexical.rsqrt().repeat_interleave(SCORED_TAGS, 1),
            head=of_type.head.rsqrt().repeat_interleave(SCORED_TAGS),
            transitions=of_type.transitions.rsqrt(),
            bias=of_type.bias.rsqrt().repeat_interleave(SCORED_TAGS),
        )

    def _read_weights(self) -> _Weights:
        tagger = self._tagger
        weights = tagger.lexical[self._rows], tagger.head, tagger.transitions, tagger.bias
        return _Weights(*(weight.detach().clone() for weight in weights))

    @torch.no_grad()
    def _write_weights(self, weights: _Weights) -> None:
        self._tagger.lexical[self._rows] = weights.lexical
        for name in ("head", "transitions", "bias"):
            getattr(self._tagger, name).copy_(getattr(weights, name))


def _count_features(features: Tensor) -> tuple[Tensor, csr_matrix]:
    """Return the distinct features, and how often each word has each of them.

    :param features: Hashed lexical features of each word.
        Shape: (words, features)
    :returns: Distinct features and counts.
        Shapes: (distinct,), (words, distinct)
    """
    rows, indices = features.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    words, of_word = indices.shape
    starts = np.arange(words + 1) * of_word
    ones = np.ones(words * of_word, np.float32)
    return rows, csr_matrix((ones, indices.flatten(), starts), (words, len(rows)))


class _SparseProduct(torch.autograd.Function):
    """The same as `embedding_bag`, but scipy's sparse matrix product computes the gradient six times as fast."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, counts: csr_matrix, transposed: csr_matrix) -> Tensor:
        ctx.transposed = transposed
        return torch.from_numpy(counts @ table.detach().numpy())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return torch.from_numpy(ctx.transposed @ gradients[0].numpy()), None, None
