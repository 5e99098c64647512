"""Calibration: how likely a value that the tagger ranks is right, learned on documents the tagger has not seen.

A value is right if the document's reviewer marked it with that type anywhere. For each type, a logistic regression
(Platt, 1999) maps the largest posterior of the value's mentions, and whether it is the type's likeliest value in the
document, to the probability that it is right. The types' coefficients are drawn to common ones, and those to the ones
of our development contracts, so that a type with few examples has usable probabilities, too.
"""

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from scipy.optimize import minimize
from scipy.special import expit

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.evaluation import gold_values, normalise_value

_PRIOR = (1.0, 0.8, 1.0)
_PRIOR_VALUES = 2.0  # values, of which 30 % are found, that are assumed when the threshold is chosen
_PRIOR_RECALL = 0.3
_TO_PRIOR, _TO_COMMON = 20.0, 2.0  # penalties on squared distances, half of which are added to the loss in nats

_BINS = 10

Coefficients = tuple[float, float, float]
Array = NDArray[np.float64]


class Example(NamedTuple):
    """A value that was ranked in a document: the largest posterior of its mentions, and whether it is right."""

    type: str
    posterior: float
    is_likeliest: bool
    is_right: bool


class Measurement(BaseModel):
    """What a tagger ranked in one document that it has not seen, and how many values the reviewer marked there."""

    examples: list[Example]
    gold_count: int


class Bin(BaseModel):
    """Extracted values of similar confidence."""

    size: int = Field(description="Number of values")
    confidence: float = Field(description="Their mean confidence")
    right: float = Field(description="The share of them that is right")


class Reliability(BaseModel):
    """How far confidences are from the truth."""

    error: float = Field(description="Expected calibration error: the mean distance of confidence and share right")
    bins: list[Bin] = Field(description="At most ten, by confidence")


class Calibration(BaseModel):
    """The coefficients of each type and of any other type, and the least probability of an extracted value."""

    of_type: dict[str, Coefficients] = Field(default_factory=dict)
    of_any_type: Coefficients = _PRIOR
    threshold: float = 0.1

    def select(self, ranked: Sequence[Entity]) -> list[Entity]:
        """Return the entities that are likely enough to be right, each with the probability that its value is right.

        A mention is kept if its own posterior would be enough. `ranked` starts with the likeliest.
        """
        probabilities: dict[tuple[str, str], float] = {}
        kept = []
        for entity, value, probability in self._estimate_all(ranked):
            of_value = probabilities.setdefault((entity.type, value), probability)
            if probability >= self.threshold:
                kept.append(Entity(entity.type, entity.value, entity.start, entity.end, of_value))
        return kept

    def count_uncertain(self, ranked: Sequence[Entity]) -> float:
        """Return how many values are expected to be extracted though wrong, or left out though right."""
        probabilities: dict[tuple[str, str], float] = {}
        for entity, value, probability in self._estimate_all(ranked):
            probabilities.setdefault((entity.type, value), probability)
        return sum(1 - each if each >= self.threshold else each for each in probabilities.values())

    def _estimate_all(self, ranked: Sequence[Entity]) -> Iterator[tuple[Entity, str, float]]:
        """Yield each entity with its value, and the probability that this is right by the entity's own posterior."""
        likeliest: dict[str, str] = {}
        for entity in ranked:
            value = normalise_value(entity.value)
            is_likeliest = likeliest.setdefault(entity.type, value) == value
            yield entity, value, self._estimate(entity.type, entity.confidence, is_likeliest)

    def estimate_found(self, measurements: Iterable[Measurement]) -> list[tuple[float, bool]]:
        """Return the confidence of each value that is extracted from these documents, and whether it is right."""
        examples = chain.from_iterable(measurement.examples for measurement in measurements)
        estimated = [
            (self._estimate(example.type, example.posterior, example.is_likeliest), example.is_right)
            for example in examples
        ]
        return [(confidence, is_right) for confidence, is_right in estimated if confidence >= self.threshold]

    def _estimate(self, type_name: str, posterior: float, is_likeliest: bool) -> float:
        coefficients = self.of_type.get(type_name, self.of_any_type)
        return float(expit(sum(map(operator.mul, coefficients, _describe(posterior, is_likeliest)))))


def measure(document: AnnotationData, ranked: Sequence[Entity]) -> Measurement:
    """Compare with the annotations what a tagger that has not seen the document ranks in it, likeliest first."""
    gold = {(value.type, value.value) for value in gold_values(document)}
    examples: dict[tuple[str, str], Example] = {}
    seen = set()
    for entity in ranked:
        value = entity.type, normalise_value(entity.value)
        if document.is_reviewed(entity.type) and value not in examples:
            examples[value] = Example(entity.type, entity.confidence, entity.type not in seen, value in gold)
        seen.add(entity.type)
    return Measurement(examples=list(examples.values()), gold_count=len(gold))


def calibrate(measurements: Iterable[Measurement]) -> Calibration:
    """Fit the coefficients to the measurements, then choose the threshold that leads to the best expected F1.

    The threshold that maximises F1 is half of the best F1 (Lipton et al., 2014).
    """
    measurements = list(measurements)
    examples = list(chain.from_iterable(measurement.examples for measurement in measurements))
    if not examples:
        return Calibration()
    types = sorted({example.type for example in examples})
    column = {name: index for index, name in enumerate(types)}
    inputs = np.array([_describe(example.posterior, example.is_likeliest) for example in examples])
    right = np.array([example.is_right for example in examples], dtype=float)
    type_of_example = np.array([column[example.type] for example in examples])
    common, deviations = _fit(inputs, right, type_of_example, len(types))
    probabilities = expit((inputs * (common + deviations[type_of_example])).sum(1))
    gold_count = sum(measurement.gold_count for measurement in measurements)
    return Calibration(
        of_type={name: _as_tuple(common + deviations[index]) for name, index in column.items()},
        of_any_type=_as_tuple(common),
        threshold=_best_expected_f1(probabilities, gold_count) / 2,
    )


def check_calibration(measurements: Sequence[Measurement]) -> Reliability:
    """Check the confidences of extracted values in every second document by a calibration fitted to the others."""
    parts = measurements[::2], measurements[1::2]
    estimated: list[tuple[float, bool]] = []
    for checked, fitted in (parts, parts[::-1]):
        calibration = calibrate(fitted)
        estimated += calibration.estimate_found(checked)
    return summarise(estimated)


def summarise(estimated: Iterable[tuple[float, bool]]) -> Reliability:
    """Return the expected calibration error (Naeini et al., 2015) of confidences, given which values are right."""
    found = np.array(list(estimated), dtype=float).reshape(-1, 2)
    bin_of_value = np.minimum((found[:, 0] * _BINS).astype(int), _BINS - 1)
    bins = []
    for number in np.unique(bin_of_value):
        of_bin = found[bin_of_value == number]
        confidence, right = of_bin.mean(0).tolist()
        bins.append(Bin(size=len(of_bin), confidence=confidence, right=right))
    error = sum(each.size * abs(each.confidence - each.right) for each in bins) / max(len(found), 1)
    return Reliability(error=error, bins=bins)


def _describe(posterior: float, is_likeliest: bool) -> tuple[float, float, float]:
    posterior = min(max(posterior, 1e-6), 1 - 1e-6)
    return 1.0, math.log(posterior / (1 - posterior)), float(is_likeliest)


def _fit(inputs: Array, right: Array, type_of_example: NDArray[np.int64], types: int) -> tuple[Array, Array]:
    """Minimise the loss by L-BFGS.

    :param inputs: What is known of each example.
        Shape: (examples, 3)
    :param right: 1 for each right example, else 0.
        Shape: (examples,)
    :param type_of_example: Index of each example's type.
        Shape: (examples,)
    :returns: The common coefficients, and each type's deviation from them.
        Shapes: (3,), (types, 3)
    """
    prior = np.array(_PRIOR)

    def evaluate_loss(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(types + 1, -1)
        deviations, from_prior = weights[1:], weights[0] - prior
        scores = (inputs * (weights[0] + deviations[type_of_example])).sum(1)
        loss = np.logaddexp(0, scores).sum() - right @ scores
        loss += _TO_PRIOR / 2 * (from_prior**2).sum() + _TO_COMMON / 2 * (deviations**2).sum()
        by_example = (expit(scores) - right)[:, None] * inputs
        of_common = by_example.sum(0) + _TO_PRIOR * from_prior
        by_type = np.stack([np.bincount(type_of_example, column, types) for column in by_example.T], 1)
        return loss, np.concatenate([of_common, (by_type + _TO_COMMON * deviations).ravel()])

    start = np.concatenate([prior, np.zeros(3 * types)])
    weights = minimize(evaluate_loss, start, jac=True, method="L-BFGS-B").x.reshape(types + 1, -1)
    return weights[0], weights[1:]


def _best_expected_f1(probabilities: Array, gold_count: int) -> float:
    """Return the largest F1 that any threshold is expected to reach."""
    ordered = np.sort(probabilities)[::-1]
    right = np.cumsum(ordered) + _PRIOR_RECALL * _PRIOR_VALUES
    found = np.arange(1, len(ordered) + 1) + _PRIOR_VALUES
    return float((2 * right / (found + gold_count + _PRIOR_VALUES)).max())


def _as_tuple(coefficients: Array) -> Coefficients:
    first, second, third = coefficients.tolist()
    return first, second, third
