"""A linear-chain CRF (Lafferty et al., 2001) for each entity type, all types and sequences at once.

Every type has a chain of its own over the tags O, B, I, so one span can carry two types and types can nest.
A word of unknown tag stands before and after each sequence, so that a window may begin or end inside an entity.

Shapes: emissions (batch, words, types, 3), transitions (types, 3, 3) from tag to tag; scores in nats.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

OUTSIDE, BEGIN, INSIDE = 0, 1, 2
TAGS = 3
_FORBIDDEN = -1e4
_LEAST = 1e-20
_LEAST_BEGIN = 0.01
_ENDS = 3
_LONGEST = 1000
_BLOCK = 32


def forbid_orphans(transitions: Tensor) -> Tensor:
    """Return the transitions with the step from O to I, which no span makes, ruled out."""
    mask = torch.zeros(TAGS, TAGS)
    mask[OUTSIDE, INSIDE] = _FORBIDDEN
    return transitions + mask


@dataclass(frozen=True)
class _Messages:
    """What is known at each word from both sides, in probabilities (Rabiner, 1989).

    `potentials`, `forward` and `backward` (batch, words, types, 3), the last two with the word's own emission and
    summing to 1; `log_scales` (batch, words, types) the logarithm of what the forward message summed to; `transfer`
    (types, 3, 3).
    """

    potentials: Tensor
    forward: Tensor
    backward: Tensor
    log_scales: Tensor
    transfer: Tensor


def _pass_messages(emissions: Tensor, transitions: Tensor, lengths: Tensor) -> _Messages:
    """Walk all chains from both ends at once; what lies behind a chain's end is meaningless."""
    words = emissions.shape[1]
    potentials = (emissions - emissions.amax(-1, keepdim=True)).exp().clamp(min=_LEAST)
    transfer = transitions.exp()
    reverse = (lengths[:, None] - 1 - torch.arange(words)).clamp(min=0)[:, :, None, None].expand_as(potentials)
    both = torch.stack([potentials, potentials.gather(1, reverse)])
    messages, log_scales = _walk(both, torch.stack([transfer, transfer.transpose(1, 2)]))
    return _Messages(potentials, messages[0], messages[1].gather(1, reverse), log_scales[0], transfer)


def _walk(potentials: Tensor, transfer: Tensor) -> tuple[Tensor, Tensor]:
    """Return all messages in one direction, summing to 1, and the logarithms of what they summed to.

    `potentials` (ways, batch, words, types, 3), `transfer` (ways, types, 3, 3). The chain is cut into blocks that are
    walked side by side, from each tag they may be entered with, and then joined: 32 + words / 32 steps of Python.
    """
    ways, batch, words, types, _ = potentials.shape
    blocks = -(-words // _BLOCK)
    padded = pad(potentials, (0, 0, 0, 0, 0, blocks * _BLOCK - words), value=1.0)
    columns = padded.reshape(ways, batch, blocks, _BLOCK, types, 1, TAGS).movedim(3, 0).contiguous()
    step = transfer[:, None, None].expand(ways, batch, blocks, types, TAGS, TAGS)
    scale = potentials.new_zeros(ways, batch, blocks, types)
    steps, scales = [], []
    for position, column in enumerate(columns.unbind(0)):
        if position:
            step = (step.unsqueeze(-1) * transfer[:, None, None, :, None]).sum(-2)
        step = step * column
        total = step.sum((-2, -1), keepdim=True)
        step = step / total
        scale = scale + total[..., 0, 0].log()
        steps.append(step)
        scales.append(scale)
    within, within_scales = torch.stack(steps, 3), torch.stack(scales, 3)

    entry, entry_scale = potentials.new_ones(ways, batch, types, TAGS), potentials.new_zeros(ways, batch, types)
    messages, log_scales = [], []
    for block in range(blocks):
        message = (entry[:, :, None, :, :, None] * within[:, :, block]).sum(-2)
        total = message.sum(-1)
        messages.append(message / total.unsqueeze(-1))
        log_scales.append(entry_scale[:, :, None] + within_scales[:, :, block] + total.log())
        entry, entry_scale = messages[-1][:, :, -1], log_scales[-1][:, :, -1]
    return torch.cat(messages, 2)[:, :, :words], torch.cat(log_scales, 2)[:, :, :words]


class _NegativeLogLikelihood(torch.autograd.Function):
    """The likelihood and its gradient in closed form: what the model expects minus what is there."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        known = _pass_messages(emissions, transitions, lengths)
        transfer = known.transfer
        real = torch.arange(emissions.shape[1]) < lengths[:, None]
        last = (lengths - 1)[:, None, None, None].expand(-1, 1, *emissions.shape[2:])
        gold = one_hot(tags, TAGS).to(emissions.dtype)
        first_gold, last_gold = gold[:, 0], gold.gather(1, last).squeeze(1)
        end = known.forward.gather(1, last).squeeze(1)

        scale = known.log_scales.gather(1, last[..., 0]).squeeze(1)
        partition = (emissions.amax(-1) * real[..., None]).sum(1) + scale + (end * transfer.sum(-1)).sum(-1).log()
        steps = gold[:, :-1].unsqueeze(-1) * gold[:, 1:].unsqueeze(-2) * real[:, 1:, None, None, None]
        path = (emissions * gold * real[..., None, None]).sum((1, 3)) + (steps.sum(1) * transitions).sum((-2, -1))
        path = path + _log_weight(first_gold, transfer.sum(-2)) + _log_weight(last_gold, transfer.sum(-1))

        tag_gradient = (_normalise(known.forward * known.backward / known.potentials, 1) - gold) * real[..., None, None]
        pairs = known.forward[:, :-1].unsqueeze(-1) * transfer * known.backward[:, 1:].unsqueeze(-2)
        step_gradient = (_normalise(pairs, 2) * real[:, 1:, None, None, None] - steps).sum(1)
        step_gradient += _normalise(transfer * known.backward[:, 0].unsqueeze(-2), 2)
        step_gradient -= _normalise(transfer * first_gold.unsqueeze(-2), 2)
        step_gradient += _normalise(end.unsqueeze(-1) * transfer, 2) - _normalise(last_gold.unsqueeze(-1) * transfer, 2)
        ctx.save_for_backward(tag_gradient, step_gradient)
        return partition - path

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        tag_gradient, step_gradient = ctx.saved_tensors
        (outer,) = gradients
        return tag_gradient * outer[:, None, :, None], (step_gradient * outer[..., None, None]).sum(0), None, None


def negative_log_likelihood(emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
    """Return each chain's negative log-likelihood, shape (batch, types).

    `tags` (batch, words, types), `lengths` (batch,) in words, each at least 1.
    """
    losses: Tensor = _NegativeLogLikelihood.apply(emissions, transitions, tags, lengths)  # type: ignore[no-untyped-call]
    return losses


def rank_spans(emissions: Tensor, transitions: Tensor) -> list[tuple[int, int, int, float]]:
    """Return likely spans of one sequence, best first, none of a type overlapping: (type, first, last, probability).

    `emissions` (words, types, 3). The probability is the posterior that exactly this span, first to last word, stands
    there. Words that begin a span with a probability below 0.01 are not looked at, nor spans of over 1,000 words.
    """
    if not len(emissions):
        return []
    words = len(emissions)
    known = _pass_messages(emissions[None], transitions, torch.tensor([words]))
    forward, backward, transfer, log_scales = known.forward[0], known.backward[0], known.transfer, known.log_scales[0]
    following = torch.cat([backward[1:], torch.ones_like(backward[:1])])
    ways_on = transfer * following.unsqueeze(-2)
    all_ways = (forward * ways_on.sum(-1)).sum(-1, keepdim=True)
    ways_on[:-1, ..., INSIDE] = 0  # what goes on does not end, except at the last word
    ends = ways_on.sum(-1) / all_ways
    begins = _normalise(forward * backward / known.potentials[0], 1)[..., BEGIN]
    stays = (transfer[:, INSIDE, INSIDE] * known.potentials[0, ..., INSIDE]).log().double().cumsum(0) - log_scales

    first, of_type = (begins >= _LEAST_BEGIN).nonzero(as_tuple=True)
    last = first[:, None] + torch.arange(min(words, _LONGEST))
    beyond = last >= words
    last = last.clamp(max=words - 1)
    types = of_type[:, None]
    going_on = (transfer[of_type, BEGIN, INSIDE] / transfer[of_type, INSIDE, INSIDE]).log() - stays[first, of_type]
    likely = (stays[last, types] + going_on[:, None]).exp() * ends[last, types, INSIDE]
    likely[:, 0] = ends[first, of_type, BEGIN]
    likely = (likely * forward[first, of_type, BEGIN, None]).masked_fill(beyond, 0.0)
    best = likely.topk(min(_ENDS, likely.shape[1]))
    found = [
        (int(of_type[row]), int(first[row]), int(first[row]) + length, min(1.0, probability))
        for row in range(len(first))
        for probability, length in zip(best.values[row].tolist(), best.indices[row].tolist(), strict=True)
    ]
    return _without_overlaps(found, words, emissions.shape[1])


def _without_overlaps(
    found: list[tuple[int, int, int, float]], words: int, types: int
) -> list[tuple[int, int, int, float]]:
    taken = torch.zeros(types, words, dtype=torch.bool)
    kept = []
    for of_type, first, last, probability in sorted(found, key=lambda span: -span[3]):
        if not taken[of_type, first : last + 1].any():
            taken[of_type, first : last + 1] = True
            kept.append((of_type, first, last, probability))
    return kept


def _log_weight(gold: Tensor, weights: Tensor) -> Tensor:
    return (gold * weights).sum(-1).log()


def _normalise(weights: Tensor, dimensions: int) -> Tensor:
    return weights / weights.sum(tuple(range(-dimensions, 0)), keepdim=True)
