"""More samples where those of a prompt disagree, fewer where they agree: a pilot of a few, then the rest of the budget."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raft_core import sampling
from raft_core.capabilities import RunPlans
from raft_core.errors import ConfigError
from raft_core.metrics.best_of import expected_max_normal
from raft_core.protocols import Policy
from raft_core.types import Grouping, Prompt, Request, Sample


@dataclass(frozen=True)
class AdaptiveK:
    """K samples of a prompt on average, spent where the best of them gains most.

    Each prompt is sampled ``pilot`` times and scored. Every further sample of the round goes to the prompt whose expected best
    it raises most: σ·(c_{n+1} − c_n), with σ the spread of the prompt's pilot scores and c_n the expected best of n standard
    normals. Where all prompts agree within themselves nothing more is drawn. ``k`` of the run is the mean number; the scores of
    the pilot are used again, so that nothing is scored twice, except by rewards that compare the samples of a round with one
    another.

    Args:
        pilot: samples that each prompt gets first, ≥ 2.
        most: times the mean number that one prompt may get at most, ≥ 2.
        prior: how many samples' worth of evidence the mean spread of all prompts is, ≥ 0: prompts whose few samples happen to
            agree still get some. 0 believes the pilot.
        start: mean number of samples of a prompt in round 1, from which it rises evenly to k; null = k from the beginning.
        rise: rounds until k is reached, if ``start`` is given.

    Source: the allocation is greedy and exact, for gains fall with n; c_n as in David and Nagaraja, Order Statistics, 3.1.
    """

    pilot: int = 4
    most: int = 2
    prior: float = 1.0
    start: int | None = None
    rise: int = 4

    def __post_init__(self) -> None:
        mistakes = []
        if self.pilot < 2:
            mistakes.append(f"pilot is {self.pilot}, but a spread takes at least 2 samples")
        if self.most < 2:
            mistakes.append(f"most is {self.most}, but must be at least 2: else every prompt gets as many as the others")
        if not 0 <= self.prior < np.inf:
            mistakes.append(f"prior is {self.prior}, but must not be negative")
        if self.start is not None and self.start < self.pilot:
            mistakes.append(f"start is {self.start}, but the pilot alone has {self.pilot} samples of each prompt")
        if self.rise < 1:
            mistakes.append(f"rise is {self.rise}, but takes at least 1 round")
        if mistakes:
            raise ConfigError(mistakes)

    def check_run(self, plans: RunPlans) -> list[str]:
        """A k that leaves nothing to spend, and a reward whose scores of a few samples say nothing of their spread."""
        found, k = [], plans.k
        if k <= self.pilot:
            found.append(f"k is {k} and pilot {self.pilot}, so there is nothing left to spend: raise k, or lower pilot")
        if self.start is not None and self.start > k:
            found.append(f"start is {self.start}, but k, to which it rises, is {k}")
        if plans.reward.info.relative:
            name = plans.reward.info.name
            found.append(
                f"{name!r} only compares the samples of a prompt with one another, so that all prompts spread alike: take "
                "FromPolicy, or a reward with a scale"
            )
        return found

    # ------------------------------------------------------------------ what a round may ask for

    def mean_k(self, k: int, rnd: int) -> int:
        """Samples of a prompt, on average, in a round."""
        if self.start is None:
            return k
        return min(k, self.start + round((k - self.start) * min((rnd - 1) / self.rise, 1.0)))

    def requests(self, prompts: Sequence[Prompt], k: int, seed: int, rnd: int) -> list[Request]:
        """As many requests of each prompt as it may get; ``first`` and ``further`` say which are made."""
        return sampling.requests(prompts, self.most * self.mean_k(k, rnd), seed, rnd)

    def samples(self, policy: Policy, requests: Sequence[Request], *, trace: bool) -> list[Sample]:
        return policy.sample(requests, purpose="round", trace=trace)

    def first(self, asked: Sequence[Request]) -> np.ndarray:
        """[N] bool: the pilot."""
        return np.array([request.index < self.pilot for request in asked])

    def further(self, asked: Sequence[Request], scores: np.ndarray) -> np.ndarray:
        """[N] bool: what is made besides the pilot, by its scores [N], higher is better, NaN = not scored or not made."""
        groups = Grouping.of(asked)
        budget = len(asked) // self.most
        sizes = shares(groups.pad(scores)[:, : self.pilot], budget, groups.sizes, self.prior)
        index = np.array([request.index for request in asked])
        return (index >= self.pilot) & (index < np.repeat(sizes, groups.sizes))


def shares(pilot: np.ndarray, budget: int, most: np.ndarray, prior: float = 1.0) -> np.ndarray:
    """[P] samples of each prompt, the pilot's included: each one more goes to where the expected best gains most.

    Args:
        pilot: [P, n] scores, NaN = not scored. A prompt with fewer than two has the mean spread.
        budget: of all prompts together; less is spent only where no prompt has any spread, or all have their most.
        most: [P] that each may get.
        prior: see ``AdaptiveK``.
    """
    spread = spreads(pilot, prior)
    sizes = np.full(len(pilot), pilot.shape[1], dtype=np.int64)
    queue = [(-_gain(spread[p], n), p) for p, n in enumerate(sizes.tolist()) if n < most[p] and spread[p] > 0]
    heapq.heapify(queue)
    left = budget - int(sizes.sum())
    while queue and left > 0:
        _, p = heapq.heappop(queue)  # of equal gains the earlier prompt
        sizes[p] += 1
        left -= 1
        if sizes[p] < most[p]:
            heapq.heappush(queue, (-_gain(spread[p], int(sizes[p])), p))
    return sizes


def spreads(pilot: np.ndarray, prior: float) -> np.ndarray:
    """[P] standard deviation of each prompt's scores, drawn towards the mean variance of all by ``prior`` samples.

    σ² = ((n − 1)·s² + prior·s̄²) / (n − 1 + prior); without two scores, or any evidence, s̄.
    """
    scored = ~np.isnan(pilot)
    n = scored.sum(axis=1)  # [P]
    mean = np.where(scored, pilot, 0).sum(axis=1) / np.maximum(n, 1)
    squares = np.where(scored, (pilot - mean[:, None]) ** 2, 0).sum(axis=1)  # [P], (n − 1)·s²
    known = n >= 2
    if not known.any():
        return np.ones(len(pilot))  # nothing is known: all alike
    overall = float((squares[known] / (n[known] - 1)).mean())
    freedom = np.maximum(n - 1, 0) + prior
    return np.sqrt(np.where(known, (squares + prior * overall) / np.maximum(freedom, 1e-12), overall))


def _gain(spread: float, n: int) -> float:
    """What one sample more than n adds to the expected best."""
    return float(spread) * (expected_max_normal(n + 1) - expected_max_normal(n))
