"""Every sample, weighted by the exponential of its score: the likelihood of what is best at a price of divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.errors import ConfigError
from raft_core.metrics.spread import effective_number
from raft_core.types import Selection, Weighted

DOUBLINGS, HALVINGS = 200, 60


@dataclass(frozen=True)
class Boltzmann:
    """Every scored sample with the weight exp(score/β) / mean of exp(score'/β) over its prompt. To be used with ``Sft``.

    Weights of a prompt have the mean 1. The policy that maximises the reward at a price of β per nat of divergence is the one
    that drew the samples, reweighted so. A small β leaves one sample, a large one all alike. How many samples count in effect,
    (Σw)²/Σw² of a prompt, is the metric ``select/effective_samples``.

    Args:
        beta: β in reward units, > 0.
        least_effective: part of a prompt's scored samples that have to count in effect, in [0, 1): where β leaves fewer, the
            prompt takes the least β that leaves so many. 0 = as they are.

    Source: BOLT (2605.02469); RWR (Peters and Schaal 2007). Differs: the floor. The weights are right for samples of the
    reference, so with several rounds ``trainer.reference`` does not matter, and each round reweights the last one.
    """

    beta: float
    least_effective: float = 0.0
    produces: ClassVar[type[Selection]] = Weighted

    def __post_init__(self) -> None:
        mistakes = []
        if not 0 < self.beta < math.inf:
            mistakes.append(f"selector.beta is {self.beta}, but must be positive, in reward units")
        if not 0 <= self.least_effective < 1:
            mistakes.append(f"selector.least_effective is {self.least_effective}, but must be in [0, 1): 0.25 is a quarter")
        if mistakes:
            raise ConfigError(mistakes)

    def __call__(self, scores: np.ndarray) -> Weighted:
        shares = boltzmann_shares(scores, self._betas(scores))
        weight = shares * (~np.isnan(scores)).sum(axis=1, keepdims=True)
        index = np.flatnonzero(~np.isnan(scores))
        return Weighted(index=index, weight=weight.ravel()[index])

    def _betas(self, scores: np.ndarray) -> np.ndarray:
        """[P] β of each prompt."""
        low = np.full(len(scores), float(self.beta))
        least = self.least_effective * (~np.isnan(scores)).sum(axis=1)
        short = effective_number(boltzmann_shares(scores, low)) < least
        if not short.any():
            return low
        high = low.copy()
        for _ in range(DOUBLINGS):
            if not (wanting := effective_number(boltzmann_shares(scores, high)) < least).any():
                break
            high = np.where(wanting, 2 * high, high)
        for _ in range(HALVINGS):  # low leaves too few, high enough
            middle = np.sqrt(low * high)
            wanting = effective_number(boltzmann_shares(scores, middle)) < least
            low, high = np.where(wanting, middle, low), np.where(wanting, high, middle)
        return np.where(short, high, self.beta)


def boltzmann_shares(scores: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """[P, K] softmax of each row's scored entries over β [P]; 0 where not scored."""
    scored = ~np.isnan(scores)
    best = np.where(scored, scores, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)  # keeps exp() in range
    raised = np.where(scored, np.exp(np.where(scored, scores - np.where(np.isfinite(best), best, 0), 0) / beta[:, None]), 0)
    return raised / np.maximum(raised.sum(axis=1, keepdims=True), 1)
