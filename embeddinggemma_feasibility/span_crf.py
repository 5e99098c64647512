"""A linear-chain CRF (Lafferty et al., 2001) for each entity type, all types and sequences at once.

Every type has a chain of its own over the tags O, B, I, so one span can carry two types and types can nest.
A word of unknown tag stands before and after each sequence, so that a window may begin or end inside an entity.

Shapes: emissions (..., words, types, 3), transitions (types, 3, 3) from tag to tag; scores in nats.
"""

from collections.abc import Callable

import torch
from torch import Tensor

OUTSIDE, BEGIN, INSIDE = 0, 1, 2
TAGS = 3
_BLOCK = 64
_FORBIDDEN = -1e4

Reduce = Callable[[Tensor, int], Tensor]


def forbid_orphans(transitions: Tensor) -> Tensor:
    """Return the transitions with the step from O to I, which no span makes, ruled out."""
    mask = torch.zeros(TAGS, TAGS)
    mask[OUTSIDE, INSIDE] = _FORBIDDEN
    return transitions + mask


def prefix_scores(emissions: Tensor, transitions: Tensor, reduce: Reduce = torch.logsumexp) -> Tensor:
    """Return the score of all paths that end in each tag at each word, in the shape of `emissions`.

    `reduce` is `torch.logsumexp` for the forward algorithm, `torch.amax` for Viterbi's scores. The chain is cut into
    blocks that are walked side by side and then joined: 64 + words / 64 steps of Python, not one a word.
    """
    *batch, words, types, _ = emissions.shape
    blocks = -(-words // _BLOCK)
    padded = torch.nn.functional.pad(emissions, (0, 0, 0, 0, 0, blocks * _BLOCK - words))
    padded = padded.reshape(*batch, blocks, _BLOCK, types, 1, TAGS)

    step = transitions + padded[..., 0, :, :, :]
    steps = [step]
    for position in range(1, _BLOCK):
        step = reduce(step.unsqueeze(-1) + transitions.unsqueeze(-3), -2) + padded[..., position, :, :, :]
        steps.append(step)
    within = torch.stack(steps, dim=len(batch) + 1)

    entry = emissions.new_zeros(*batch, types, TAGS)
    scores = []
    for block in within.unbind(dim=len(batch)):
        scores.append(reduce(entry.unsqueeze(-1).unsqueeze(-4) + block, -2))
        entry = scores[-1][..., -1, :, :]
    return torch.cat(scores, dim=-3)[..., :words, :, :]


def suffix_scores(emissions: Tensor, transitions: Tensor, reduce: Reduce = torch.logsumexp) -> Tensor:
    """Return the score of all paths that start in each tag at each word, that word's own emission included."""
    return prefix_scores(emissions.flip(-3), transitions.transpose(-1, -2), reduce).flip(-3)


def negative_log_likelihood(emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
    """Return each chain's negative log-likelihood, shape (batch, types).

    `emissions` (batch, words, types, 3), `tags` (batch, words, types), `lengths` (batch,) in words, each at least 1.
    """
    words = emissions.shape[1]
    types = torch.arange(emissions.shape[2])
    edge = torch.logsumexp(transitions, dim=-1)
    last = (lengths - 1)[:, None, None, None].expand(-1, 1, *emissions.shape[2:])
    ends = prefix_scores(emissions, transitions).gather(1, last).squeeze(1)
    partition = torch.logsumexp(ends + edge, dim=-1)

    real = torch.arange(words) < lengths[:, None]
    emitted = emissions.gather(-1, tags.unsqueeze(-1)).squeeze(-1)
    moved = transitions[types, tags[:, :-1], tags[:, 1:]]
    path = (emitted * real[..., None]).sum(1) + (moved * real[:, 1:, None]).sum(1)
    first_tags = tags[:, 0]
    last_tags = tags.gather(1, last[..., 0]).squeeze(1)
    path = path + torch.logsumexp(transitions, dim=-2)[types, first_tags] + edge[types, last_tags]
    return partition - path


def decode(emissions: Tensor, transitions: Tensor) -> list[tuple[int, int, int, float]]:
    """Return the spans of each type's best path over one sequence: (type, first word, last word, confidence).

    `emissions` (words, types, 3). The confidence is the posterior probability that exactly this span stands there.
    """
    if not len(emissions):
        return []
    best = prefix_scores(emissions, transitions, torch.amax) + suffix_scores(emissions, transitions, torch.amax)
    tags = (best - emissions).argmax(-1)
    before = prefix_scores(emissions, transitions)
    after = suffix_scores(emissions, transitions)
    partition = torch.logsumexp(before[-1] + torch.logsumexp(transitions, dim=-1), dim=-1)

    spans = []
    for type_index, first, last in _runs(tags):
        moves, emitted = transitions[type_index], emissions[:, type_index]
        path = before[first, type_index, tags[first, type_index]] + emitted[first + 1 : last + 1, INSIDE].sum()
        if last > first:
            path = path + moves[tags[first, type_index], INSIDE] + moves[INSIDE, INSIDE] * (last - first - 1)
        ending = moves[tags[last, type_index]]
        if last + 1 < len(emissions):
            ending = ending + after[last + 1, type_index]
            ending = ending[:INSIDE]
        log_posterior = path + torch.logsumexp(ending, dim=-1) - partition[type_index]
        spans.append((type_index, first, last, min(1.0, float(log_posterior.exp()))))
    return spans


def _runs(tags: Tensor) -> list[tuple[int, int, int]]:
    runs = []
    for type_index, column in enumerate(tags.T.tolist()):
        first: int | None = None
        for index, tag in enumerate(column):
            if first is not None and tag != INSIDE:
                runs.append((type_index, first, index - 1))
                first = None
            if tag == BEGIN or (tag == INSIDE and first is None):
                first = index
        if first is not None:
            runs.append((type_index, first, len(column) - 1))
    return runs
