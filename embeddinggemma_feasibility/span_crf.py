"""One linear-chain CRF (Lafferty et al., 2001) for each entity type, computed for all types and sequences at once.

Each type has its own chain of the tags O, B and I, so spans of different types may coincide or nest. Before and after
each sequence stands one more word whose tag is unknown, so a sequence may begin or end inside an entity.

Scores are in nats. Transitions are indexed by type, tag, and tag of the next word.
"""

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

OUTSIDE, BEGIN, INSIDE = 0, 1, 2
TAGS = 3
SCORED_TAGS = 2  # B and I: the score of O is 0, since only differences matter
_FORBIDDEN = -1e4
_LEAST_POTENTIAL = 1e-60
_LEAST_PROBABILITY = 0.01

Array = NDArray[np.float64]
TagArray = NDArray[np.int64]
RankedSpan = tuple[int, int, int, float]


def unflatten_scores(scores: Tensor) -> Tensor:
    """Return the scores of all tags.

    :param scores: Scores of the tags B and I.
        Shape: (words, types * 2)
    :returns: Emissions, in which the tag O has score 0.
        Shape: (words, types, 3)
    """
    return pad(scores.reshape(len(scores), scores.shape[1] // SCORED_TAGS, SCORED_TAGS), (1, 0))


def constrain_transitions(transitions: Tensor) -> Tensor:
    """Return the transitions with the one from O to I, which no span produces, made impossible.

    :param transitions: Transition scores.
        Shape: (types, 3, 3)
    :returns: Constrained transition scores.
        Shape: (types, 3, 3)
    """
    mask = torch.zeros(TAGS, TAGS)
    mask[OUTSIDE, INSIDE] = _FORBIDDEN
    return transitions + mask


def negative_log_likelihood(emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
    """Return the negative log-likelihood of each sequence; the sequences are concatenated.

    :param emissions: Tag scores of each word.
        Shape: (words, types, 3)
    :param transitions: Transition scores.
        Shape: (types, 3, 3)
    :param tags: Gold tags.
        Shape: (words, types)
    :param lengths: Words in each sequence, at least 1.
        Shape: (sequences,)
    :returns: Losses in nats.
        Shape: (sequences, types)
    """
    losses: Tensor = _NegativeLogLikelihood.apply(emissions, transitions, tags, lengths)  # type: ignore[no-untyped-call]
    return losses


def rank_spans(emissions: Tensor, transitions: Tensor) -> list[RankedSpan]:
    """Return the likely spans of one sequence, likeliest first; spans of one type do not overlap.

    A span is its type's index, its first and last word, and the posterior probability, at least 0.01, that exactly
    this span is there.

    :param emissions: Tag scores of each word.
        Shape: (words, types, 3)
    :param transitions: Transition scores.
        Shape: (types, 3, 3)
    """
    found = _list_spans(_shift(emissions), transitions.double().exp().numpy())
    taken = np.zeros((emissions.shape[1], len(emissions)), dtype=np.bool_)
    kept = []
    for type_index, first, last, probability in sorted(found, key=lambda span: -span[3]):
        if not taken[type_index, first : last + 1].any():
            taken[type_index, first : last + 1] = True
            kept.append((type_index, first, last, probability))
    return kept


def compile_crf() -> None:
    """Compile this module's functions, which are otherwise compiled on first use in each forked process."""
    emissions, transitions, tags = torch.zeros(1, 1, TAGS), torch.zeros(1, TAGS, TAGS), torch.zeros(1, 1).long()
    negative_log_likelihood(emissions, transitions, tags, torch.ones(1).long())
    rank_spans(emissions, transitions)


class _NegativeLogLikelihood(torch.autograd.Function):
    """The negative log-likelihood with its gradient in closed form: expected minus observed counts."""

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
    """Return the emissions with the maximum of each word at 0, which changes no probability."""
    emissions = emissions.detach().double()
    shifted: Array = (emissions - emissions.amax(-1, keepdim=True)).numpy()
    return shifted


@njit(cache=True)
def _pass_messages(emissions: Array, transfer: Array) -> tuple[Array, Array, Array, Array]:
    """Run the forward-backward algorithm (Rabiner, 1989) on one chain.

    Messages include the word's own potential and are scaled to sum to 1.

    :param emissions: Tag scores of each word, the maximum of a word 0.
        Shape: (words, 3)
    :param transfer: Exponentials of the transition scores.
        Shape: (3, 3)
    :returns: Potentials (exponentials of the emissions), forward messages, backward messages, and the sums of the
        forward messages before scaling.
        Shapes: (words, 3), (words, 3), (words, 3), (words,)
    """
    potentials, forward, sums = _pass_forward(emissions, transfer)
    return potentials, forward, _pass_backward(potentials, transfer), sums


@njit(cache=True)
def _pass_forward(emissions: Array, transfer: Array) -> tuple[Array, Array, Array]:
    words = len(emissions)
    potentials, forward, sums = np.empty((words, TAGS)), np.empty((words, TAGS)), np.zeros(words)
    for word in range(words):
        for tag in range(TAGS):
            potentials[word, tag] = max(np.exp(emissions[word, tag]), _LEAST_POTENTIAL)  # a loop of its own is slower
            incoming = 0.0
            for previous in range(TAGS):
                incoming += (forward[word - 1, previous] if word else 1.0) * transfer[previous, tag]
            forward[word, tag] = incoming * potentials[word, tag]
            sums[word] += forward[word, tag]
        for tag in range(TAGS):
            forward[word, tag] /= sums[word]
    return potentials, forward, sums


@njit(cache=True)
def _pass_backward(potentials: Array, transfer: Array) -> Array:
    words = len(potentials)
    backward = np.empty((words, TAGS))
    for word in range(words - 1, -1, -1):
        total = 0.0
        for tag in range(TAGS):
            incoming = 0.0
            for following in range(TAGS):
                incoming += transfer[tag, following] * (backward[word + 1, following] if word + 1 < words else 1.0)
            backward[word, tag] = incoming * potentials[word, tag]
            total += backward[word, tag]
        for tag in range(TAGS):
            backward[word, tag] /= total
    return backward


@njit(cache=True)
def _differentiate(
    emissions: Array, transfer: Array, tags: TagArray, ends: NDArray[np.int64]
) -> tuple[Array, Array, Array]:
    """Return the losses and each sequence's gradients with respect to emissions and to transitions.

    :param ends: Index of the word after each sequence.
        Shape: (sequences,)
    :returns: Losses, emission gradients, transition gradients.
        Shapes: (sequences, types), (words, types, 3), (sequences, types, 3, 3)
    """
    types = emissions.shape[1]
    losses = np.empty((len(ends), types))
    by_emission = np.empty(emissions.shape)
    by_transition = np.zeros((len(ends), types, TAGS, TAGS))
    for sequence in range(len(ends)):
        start = 0 if sequence == 0 else ends[sequence - 1]
        words = slice(start, ends[sequence])
        for type_index in range(types):
            losses[sequence, type_index] = _differentiate_chain(
                emissions[words, type_index],
                transfer[type_index],
                tags[words, type_index],
                by_emission[words, type_index],
                by_transition[sequence, type_index],
            )
    return losses, by_emission, by_transition


@njit(cache=True)
def _differentiate_chain(
    emissions: Array, transfer: Array, tags: TagArray, by_emission: Array, by_transition: Array
) -> float:
    """Return one chain's loss; write its gradients to the last two arguments."""
    potentials, forward, backward, sums = _pass_messages(emissions, transfer)
    first, last = transfer[:, tags[0]].sum(), transfer[tags[-1]].sum()
    loss: float = np.log((forward[-1] * transfer.sum(1)).sum()) - np.log(first) - np.log(last)
    for word in range(len(tags)):
        loss += np.log(sums[word]) - emissions[word, tags[word]]
        total = 0.0
        for tag in range(TAGS):
            by_emission[word, tag] = forward[word, tag] * backward[word, tag] / potentials[word, tag]
            total += by_emission[word, tag]
        for tag in range(TAGS):
            by_emission[word, tag] /= total
        by_emission[word, tags[word]] -= 1.0
    unknown = np.ones((1, TAGS))
    _add_expected(by_transition, unknown, transfer, backward[:1])
    _add_expected(by_transition, forward[:-1], transfer, backward[1:])
    _add_expected(by_transition, forward[-1:], transfer, unknown)
    for word in range(1, len(tags)):
        loss -= np.log(transfer[tags[word - 1], tags[word]])
        by_transition[tags[word - 1], tags[word]] -= 1.0
    for tag in range(TAGS):
        by_transition[tag, tags[0]] -= transfer[tag, tags[0]] / first
        by_transition[tags[-1], tag] -= transfer[tags[-1], tag] / last
    return loss


@njit(cache=True)
def _add_expected(by_transition: Array, forward: Array, transfer: Array, backward: Array) -> None:
    """Add the posterior probabilities of the transitions between words with these messages.

    :param forward: Forward messages of the first word of each transition.
        Shape: (transitions, 3)
    :param backward: Backward messages of the second word of each transition.
        Shape: (transitions, 3)
    """
    for step in range(len(forward)):
        total = 0.0
        for tag in range(TAGS):
            for following in range(TAGS):
                total += forward[step, tag] * transfer[tag, following] * backward[step, following]
        for tag in range(TAGS):
            for following in range(TAGS):
                weight = forward[step, tag] * transfer[tag, following] * backward[step, following]
                by_transition[tag, following] += weight / total


@njit(cache=True)
def _list_spans(emissions: Array, transfer: Array) -> list[RankedSpan]:
    """Return every span of every type whose posterior probability is at least 0.01."""
    found = []
    words = len(emissions)
    for type_index in range(emissions.shape[1]):
        potentials, forward, backward, sums = _pass_messages(emissions[:, type_index], transfer[type_index])
        for first in range(words):
            tag, reached = BEGIN, forward[first, BEGIN]
            for last in range(first, words):
                if last > first:
                    reached *= transfer[type_index, tag, INSIDE] * potentials[last, INSIDE] / sums[last]
                    tag = INSIDE
                outgoing = transfer[type_index] * (backward[last + 1] if last + 1 < words else np.ones(TAGS))
                total = (forward[last] * outgoing.sum(1)).sum()
                if reached * outgoing[tag].sum() / total < _LEAST_PROBABILITY:
                    break
                continued = outgoing[tag, INSIDE] if last + 1 < words else 0.0
                probability = reached * (outgoing[tag].sum() - continued) / total
                if probability >= _LEAST_PROBABILITY:
                    found.append((type_index, first, last, probability))
    return found
