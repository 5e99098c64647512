"""The training of the head: all weights of a tagger but the adapter's, by L-BFGS."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.optim import LBFGS

from embeddinggemma_feasibility.samples import Sample
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_batch import TrainingBatch


def train_head(
    tagger: Tagger, samples: Sequence[Sample], iterations: int, on_progress: Callable[[float], None]
) -> list[float]:
    """Minimise the L2-regularised loss of all samples by L-BFGS (Liu and Nocedal, 1989).

    Returns the mean loss of a sample, in nats, at each evaluation. Rows of the lexical table that no sample uses stay
    as they are.
    """
    batch = TrainingBatch.of_samples(samples)
    rows, counts = _count_features(batch.features)
    lexical = tagger.lexical.detach()[rows].requires_grad_()
    penalised = [lexical, tagger.head, tagger.transitions]
    optimiser = LBFGS(
        [*penalised, tagger.bias], max_iter=iterations, max_eval=2 * iterations, line_search_fn="strong_wolfe"
    )
    losses: list[float] = []

    def evaluate_loss() -> Tensor:
        optimiser.zero_grad()
        loss = batch.loss(tagger, _SparseProduct.apply(lexical, counts))  # type: ignore[no-untyped-call]
        losses.append(loss.item() / len(samples))
        loss = loss + tagger.config.l2 / 2 * sum(weight.square().sum() for weight in penalised)
        loss.backward()  # type: ignore[no-untyped-call]
        on_progress(min(1.0, len(losses) / iterations))
        return loss

    optimiser.step(evaluate_loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        tagger.lexical[rows] = lexical
    return losses


def _count_features(features: Tensor) -> tuple[Tensor, csr_matrix]:
    """Return the distinct features, and how often each word has each of them.

    :param features: Hashed lexical features of each word.
        Shape: (words, features)
    :returns: Distinct features and counts.
        Shapes: (distinct,), (words, distinct)
    """
    rows, indices = features.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    words, of_word = indices.shape
    starts = range(0, words * of_word + 1, of_word)
    ones = np.ones(words * of_word, np.float32)
    return rows, csr_matrix((ones, indices.flatten(), starts), (words, len(rows)))


class _SparseProduct(torch.autograd.Function):
    """The same as `embedding_bag`, but scipy's sparse matrix product computes the gradient six times as fast."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, counts: csr_matrix) -> Tensor:
        ctx.counts = counts
        return torch.from_numpy(counts @ table.detach().numpy())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.counts.T @ gradients[0].numpy()), None
