from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from embeddinggemma_feasibility.span_crf import (
    BEGIN,
    INSIDE,
    OUTSIDE,
    TAGS,
    decode,
    forbid_orphans,
    negative_log_likelihood,
    prefix_scores,
)


@pytest.fixture
def chain() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return 2 * torch.randn(6, 2, TAGS), forbid_orphans(torch.randn(2, TAGS, TAGS))


def path_scores(emissions: Tensor, transitions: Tensor) -> dict[tuple[int, ...], Tensor]:
    """The score of every path of one chain (words, 3), by enumeration."""
    start, end = torch.logsumexp(transitions, 0), torch.logsumexp(transitions, 1)
    scores = {}
    for path in product(range(TAGS), repeat=len(emissions)):
        score = start[path[0]] + end[path[-1]] + sum(emissions[i, tag] for i, tag in enumerate(path))
        scores[path] = score + sum(transitions[a, b] for a, b in pairwise(path))
    return scores


def test_likelihood_equals_that_of_enumerated_paths(chain: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = chain
    path = (OUTSIDE, BEGIN, INSIDE, OUTSIDE, BEGIN, BEGIN)
    expected = []
    for chain_index in range(2):
        scores = path_scores(emissions[:, chain_index], transitions[chain_index])
        expected.append(torch.logsumexp(torch.stack(list(scores.values())), 0) - scores[path])
    tags = torch.tensor(path)[None, :, None].expand(1, 6, 2)
    losses = negative_log_likelihood(emissions[None], transitions, tags, torch.tensor([6]))
    assert torch.allclose(losses[0], torch.stack(expected), atol=1e-4)


def test_padding_does_not_change_the_likelihood(chain: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = chain
    tags = torch.zeros(2, 6, 2, dtype=torch.long)
    both = negative_log_likelihood(torch.stack([emissions, emissions]), transitions, tags, torch.tensor([6, 4]))
    short = negative_log_likelihood(emissions[None, :4], transitions, tags[:1, :4], torch.tensor([4]))
    assert torch.allclose(both[1], short[0], atol=1e-4)


def test_decoded_spans_and_confidences_equal_those_of_enumerated_paths(chain: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = chain
    expected = []
    for chain_index in range(2):
        scores = path_scores(emissions[:, chain_index], transitions[chain_index])
        best = max(scores, key=lambda path: float(scores[path]))
        total = torch.logsumexp(torch.stack(list(scores.values())), 0)
        for first, last in spans_of(best):
            same = [score for path, score in scores.items() if (first, last) in spans_of(path, best[first])]
            expected.append((chain_index, first, last, float((torch.logsumexp(torch.stack(same), 0) - total).exp())))
    decoded = decode(emissions, transitions)
    assert [span[:3] for span in decoded] == [span[:3] for span in expected]
    assert [span[3] for span in decoded] == pytest.approx([span[3] for span in expected], abs=1e-4)


def spans_of(path: tuple[int, ...], first_tag: int | None = None) -> list[tuple[int, int]]:
    found, first = [], None
    for index, tag in enumerate((*path, OUTSIDE)):
        if first is not None and tag != INSIDE:
            found.append((first, index - 1))
            first = None
        if tag == BEGIN or (tag == INSIDE and first is None):
            first = index
    return [span for span in found if first_tag is None or path[span[0]] == first_tag]


def test_chain_longer_than_a_block_scores_as_walked_word_by_word() -> None:
    torch.manual_seed(2)
    emissions, transitions = torch.randn(200, 3, TAGS), torch.randn(3, TAGS, TAGS)
    score = torch.zeros(3, TAGS)
    walked = []
    for emission in emissions:
        score = torch.logsumexp(score[..., None] + transitions, -2) + emission
        walked.append(score)
    assert torch.allclose(prefix_scores(emissions, transitions), torch.stack(walked), atol=1e-3)


def test_empty_sequence_has_no_spans() -> None:
    assert decode(torch.zeros(0, 2, TAGS), torch.zeros(2, TAGS, TAGS)) == []
