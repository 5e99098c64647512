from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from embeddinggemma_feasibility.span_crf import (
    BEGIN,
    INSIDE,
    OUTSIDE,
    TAGS,
    constrain_transitions,
    negative_log_likelihood,
    rank_spans,
)

Path = tuple[int, ...]


@pytest.fixture
def chain() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return 2 * torch.randn(6, 2, TAGS), constrain_transitions(torch.randn(2, TAGS, TAGS))


def path_scores(emissions: Tensor, transitions: Tensor) -> dict[Path, Tensor]:
    """Return the score of every path of one chain, by enumeration; `emissions` has the shape (words, 3)."""
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
    tags = torch.tensor(path)[:, None].expand(6, 2)
    losses = negative_log_likelihood(emissions, transitions, tags, torch.tensor([6]))
    assert torch.allclose(losses[0], torch.stack(expected), atol=1e-4)


def test_gradient_equals_the_numerical_gradient() -> None:
    torch.manual_seed(3)
    emissions = torch.randn(9, 2, TAGS, dtype=torch.double, requires_grad=True)
    transitions = torch.randn(2, TAGS, TAGS, dtype=torch.double, requires_grad=True)
    tags, lengths = torch.randint(0, TAGS, (9, 2)), torch.tensor([5, 1, 3])
    assert torch.autograd.gradcheck(negative_log_likelihood, (emissions, transitions, tags, lengths))


def test_loss_of_a_sequence_does_not_depend_on_other_sequences(chain: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = chain
    tags = torch.zeros(10, 2, dtype=torch.long)
    both = negative_log_likelihood(torch.cat([emissions, emissions[:4]]), transitions, tags, torch.tensor([6, 4]))
    alone = negative_log_likelihood(emissions[:4], transitions, tags[:4], torch.tensor([4]))
    assert torch.allclose(both[1], alone[0], atol=1e-4)


def test_probabilities_of_spans_equal_those_of_enumerated_paths(chain: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = chain
    ranked = rank_spans(emissions, transitions)
    assert ranked
    for chain_index, first, last, probability in ranked:
        scores = path_scores(emissions[:, chain_index], transitions[chain_index])
        total = torch.logsumexp(torch.stack(list(scores.values())), 0)
        with_span = [score for path, score in scores.items() if (first, last) in spans_of(path)]
        assert probability == pytest.approx(float((torch.logsumexp(torch.stack(with_span), 0) - total).exp()), abs=1e-4)


def spans_of(path: Path) -> set[tuple[int, int]]:
    """Return the first and last word of each span that begins with B."""
    begins = [index for index, tag in enumerate(path) if tag == BEGIN]
    ends = [next((i - 1 for i in range(b + 1, len(path)) if path[i] != INSIDE), len(path) - 1) for b in begins]
    return set(zip(begins, ends, strict=True))


def test_spans_are_ranked_by_probability_and_do_not_overlap_within_a_type(chain: tuple[Tensor, Tensor]) -> None:
    ranked = rank_spans(*chain)
    assert [span[3] for span in ranked] == sorted((span[3] for span in ranked), reverse=True)
    for type_index in range(2):
        words = [word for found, first, last, _ in ranked if found == type_index for word in range(first, last + 1)]
        assert len(words) == len(set(words))


def test_emissions_that_contradict_the_tags_have_a_finite_loss() -> None:
    emissions = torch.zeros(50, 1, TAGS)
    emissions[:25, 0, OUTSIDE], emissions[25:, 0, INSIDE] = 1e4, 1e4
    tags = torch.zeros(50, 1, dtype=torch.long)
    loss = negative_log_likelihood(
        emissions, constrain_transitions(torch.zeros(1, TAGS, TAGS)), tags, torch.tensor([50])
    )
    assert loss.isfinite().all()


def test_empty_sequence_has_no_spans() -> None:
    assert rank_spans(torch.zeros(0, 2, TAGS), torch.zeros(2, TAGS, TAGS)) == []
