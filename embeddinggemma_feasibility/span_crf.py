"""A linear-chain CRF (Lafferty et al., 2001) for each entity type, all types and sequences at once.

Every type has a chain of its own over the tags O, B, I, so one span can carry two types and types can nest.
A word of unknown tag stands before and after each sequence, so that a window may begin or end inside an entity.

Shapes: emissions (words, types, 3), transitions (types, 3, 3) from tag to tag; scores in nats.
"""

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

OUTSIDE, BEGIN, INSIDE = 0, 1, 2
TAGS = 3
_FORBIDDEN = -1e4
_LEAST_POTENTIAL = 1e-60
_LEAST_PROBABILITY = 0.01

Array = NDArray[np.float64]


def forbid_orphans(transitions: Tensor) -> Tensor:
    """Return the transitions with the step from O to I, which no span makes, ruled out."""
    mask = torch.zeros(TAGS, TAGS)
    mask[OUTSIDE, INSIDE] = _FORBIDDEN
    return transitions + mask


def negative_log_likelihood(emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
    """Return each sequence's negative log-likelihood, shape (sequences, types).

    The sequences follow one another in `emissions` and `tags` (words, types); `lengths` (sequences,) are in words, each
    at least 1.
    """
    losses: Tensor = _NegativeLogLikelihood.apply(emissions, transitions, tags, lengths)  # type: ignore[no-untyped-call]
    return losses


def rank_spans(emissions: Tensor, transitions: Tensor) -> list[tuple[int, int, int, float]]:
    """Return likely spans of one sequence, best first, none of a type overlapping: (type, first, last, probability).

    The probability is the posterior that exactly this span, first to last word, stands there, and at least 0.01.
    """
    found = _list_spans(_shift(emissions), transitions.double().exp().numpy())
    taken = np.zeros((emissions.shape[1], len(emissions)), dtype=np.bool_)
    kept = []
    for of_type, first, last, probability in sorted(found, key=lambda span: -span[3]):
        if not taken[of_type, first : last + 1].any():
            taken[of_type, first : last + 1] = True
            kept.append((of_type, first, last, probability))
    return kept


def compile_crf() -> None:
    """Compile now what is otherwise compiled when it is first used, so that a process forked later need not."""
    emissions, transitions, tags = torch.zeros(1, 1, TAGS), torch.zeros(1, TAGS, TAGS), torch.zeros(1, 1).long()
    negative_log_likelihood(emissions, transitions, tags, torch.ones(1).long())
    rank_spans(emissions, transitions)


class _NegativeLogLikelihood(torch.autograd.Function):
    """The likelihood and its gradient in closed form: what the model expects minus what is there."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        ends = lengths.cumsum(0)
        losses, emission_gradient, transition_gradient = _differentiate(
            _shift(emissions), transitions.detach().double().exp().numpy(), tags.numpy(), ends.numpy()
        )
        gradients = torch.from_numpy(emission_gradient), torch.from_numpy(transition_gradient)
        ctx.save_for_backward(*(gradient.to(emissions.dtype) for gradient in gradients))
        ctx.lengths = lengths
        return torch.from_numpy(losses).to(emissions.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        emission_gradient, transition_gradient = ctx.saved_tensors
        (outer,) = gradients
        of_word = outer.repeat_interleave(ctx.lengths, 0)
        return emission_gradient * of_word[..., None], (transition_gradient * outer[..., None, None]).sum(0), None, None


def _shift(emissions: Tensor) -> Array:
    """Return the emissions with each word's greatest at 0, which changes no probability."""
    emissions = emissions.detach().double()
    shifted: Array = (emissions - emissions.amax(-1, keepdim=True)).numpy()
    return shifted


@njit(cache=True)
def _pass_messages(emissions: Array, transfer: Array) -> tuple[Array, Array, Array, Array]:
    """Return what is known at each word of one chain from both sides, in probabilities (Rabiner, 1989).

    `emissions` (words, 3), the greatest of each word 0; `transfer` (3, 3) the exponentials of the transitions. The
    result: the exponentials of the emissions; the messages from before and from behind, with the word's own emission
    and summing to 1; and what those from before summed to; the last (words,), the others (words, 3).
    """
    words = len(emissions)
    potentials, before, behind = np.empty((words, TAGS)), np.empty((words, TAGS)), np.empty((words, TAGS))
    sums = np.zeros(words)
    for word in range(words):
        for tag in range(TAGS):
            potentials[word, tag] = max(np.exp(emissions[word, tag]), _LEAST_POTENTIAL)
            reached = 0.0
            for previous in range(TAGS):
                reached += (before[word - 1, previous] if word else 1.0) * transfer[previous, tag]
            before[word, tag] = reached * potentials[word, tag]
            sums[word] += before[word, tag]
        for tag in range(TAGS):
            before[word, tag] /= sums[word]
    for word in range(words - 1, -1, -1):
        total = 0.0
        for tag in range(TAGS):
            reached = 0.0
            for following in range(TAGS):
                reached += transfer[tag, following] * (behind[word + 1, following] if word + 1 < words else 1.0)
            behind[word, tag] = reached * potentials[word, tag]
            total += behind[word, tag]
        for tag in range(TAGS):
            behind[word, tag] /= total
    return potentials, before, behind, sums


@njit(cache=True)
def _differentiate(
    emissions: Array, transfer: Array, tags: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[Array, Array, Array]:
    """Return the losses (sequences, types) and their gradients by emissions and by transitions of each sequence."""
    types = emissions.shape[1]
    losses = np.empty((len(ends), types))
    by_emission = np.empty(emissions.shape)
    by_transition = np.zeros((len(ends), types, TAGS, TAGS))
    for sequence in range(len(ends)):
        start = 0 if sequence == 0 else ends[sequence - 1]
        words = slice(start, ends[sequence])
        for of_type in range(types):
            losses[sequence, of_type] = _differentiate_chain(
                emissions[words, of_type],
                transfer[of_type],
                tags[words, of_type],
                by_emission[words, of_type],
                by_transition[sequence, of_type],
            )
    return losses, by_emission, by_transition


@njit(cache=True)
def _differentiate_chain(
    emissions: Array, transfer: Array, tags: NDArray[np.int64], by_emission: Array, by_transition: Array
) -> float:
    """Return one chain's loss; write its gradients into the last two arguments."""
    potentials, before, behind, sums = _pass_messages(emissions, transfer)
    words = len(tags)
    entry, leave = transfer[:, tags[0]].sum(), transfer[tags[-1]].sum()
    loss: float = np.log((before[-1] * transfer.sum(1)).sum()) - np.log(entry) - np.log(leave)
    for word in range(words):
        loss += np.log(sums[word]) - emissions[word, tags[word]]
        total = 0.0
        for tag in range(TAGS):
            by_emission[word, tag] = before[word, tag] * behind[word, tag] / potentials[word, tag]
            total += by_emission[word, tag]
        for tag in range(TAGS):
            by_emission[word, tag] /= total
        by_emission[word, tags[word]] -= 1.0
    unknown = np.ones((1, TAGS))
    _add_expected(by_transition, unknown, transfer, behind[:1])
    _add_expected(by_transition, before[:-1], transfer, behind[1:])
    _add_expected(by_transition, before[-1:], transfer, unknown)
    for word in range(1, words):
        loss -= np.log(transfer[tags[word - 1], tags[word]])
        by_transition[tags[word - 1], tags[word]] -= 1.0
    for tag in range(TAGS):
        by_transition[tag, tags[0]] -= transfer[tag, tags[0]] / entry
        by_transition[tags[-1], tag] -= transfer[tags[-1], tag] / leave
    return loss


@njit(cache=True)
def _add_expected(by_transition: Array, before: Array, transfer: Array, behind: Array) -> None:
    """Add the probability of each step from a word of `before` to that of `behind`, both (steps, 3)."""
    for step in range(len(before)):
        total = 0.0
        for tag in range(TAGS):
            for following in range(TAGS):
                total += before[step, tag] * transfer[tag, following] * behind[step, following]
        for tag in range(TAGS):
            for following in range(TAGS):
                weight = before[step, tag] * transfer[tag, following] * behind[step, following]
                by_transition[tag, following] += weight / total


@njit(cache=True)
def _list_spans(emissions: Array, transfer: Array) -> list[tuple[int, int, int, float]]:
    """Return every span of every type whose posterior is at least 0.01."""
    found = []
    words = len(emissions)
    for of_type in range(emissions.shape[1]):
        potentials, before, behind, sums = _pass_messages(emissions[:, of_type], transfer[of_type])
        for first in range(words):
            tag, reached = BEGIN, before[first, BEGIN]
            for last in range(first, words):
                if last > first:
                    reached *= transfer[of_type, tag, INSIDE] * potentials[last, INSIDE] / sums[last]
                    tag = INSIDE
                known = behind[last + 1] if last + 1 < words else np.ones(TAGS)
                ways_on = transfer[of_type] * known
                total = (before[last] * ways_on.sum(1)).sum()
                if reached * ways_on[tag].sum() / total < _LEAST_PROBABILITY:
                    break
                goes_on = ways_on[tag, INSIDE] if last + 1 < words else 0.0
                probability = reached * (ways_on[tag].sum() - goes_on) / total
                if probability >= _LEAST_PROBABILITY:
                    found.append((of_type, first, last, probability))
    return found
