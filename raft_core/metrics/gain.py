"""What the best of k samples will gain over the average one, predicted from a few scored samples of a few prompts.

Up to as many samples as there are of a prompt this is measured. Beyond, it depends on the shape of the rewards: normal ones
follow their spread, those of a few levels (right or wrong, stars) the chance of each level, which differs between prompts.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np

from raft_core.metrics.best_of import expected_max, gaussian_gain
from raft_core.metrics.statistics import Estimate

SAMPLES_PER_LEVEL = 8  # with fewer, values that repeat may do so by chance
GRID = 96  # fine enough for the posterior of two thousand prompts


def predicted_gain(scores: np.ndarray, k: int, level: float = 0.95) -> Estimate:
    """Mean over prompts of E max of k − mean, with an interval for further prompts.

    Args:
        scores: [P, n] of frozen-policy samples, NaN = not scored; higher is better.
        k: may exceed n.
        level: coverage aimed at. Bounds are NaN with fewer than two prompts that count, but for rewards of a few levels.
    """
    if len(found := levels(scores)):
        return gain_of_levels(scores, found, k, level)
    rows = [row[~np.isnan(row)] for row in scores]
    if k <= max(map(len, rows), default=0):
        gains = [expected_max(row, k) - row.mean() for row in rows if len(row) >= k]
    else:
        gains = [gaussian_gain(deviation, k) for deviation in deviations(scores)]
    return mean_over_prompts(np.array(gains), level)


def deviations(scores: np.ndarray) -> np.ndarray:
    """Standard deviation of each prompt with two scores or more, without the bias of few: s / c₄(n)."""
    rows = [row[~np.isnan(row)] for row in scores]
    return np.array([row.std(ddof=1) / c4(len(row)) for row in rows if len(row) > 1])


def c4(n: int) -> float:
    """E s / σ of the standard deviation s (n − 1) of n normal values: √(2/(n − 1)) Γ(n/2) / Γ((n − 1)/2).

    c₄(2) = 0.7979, c₄(4) = 0.9213, c₄(16) = 0.9835.

    Source: Cureton 1968.
    """
    return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def mean_over_prompts(gains: np.ndarray, level: float) -> Estimate:
    """Mean of [P] gains with Student's interval, which goes no lower than 0: choosing cannot lose."""
    from scipy.stats import t

    p = len(gains)
    if not p:
        return Estimate(math.nan, math.nan, math.nan)
    mean = float(gains.mean())
    if p < 2:
        return Estimate(mean, math.nan, math.nan)
    half = float(t.ppf(0.5 + level / 2, p - 1) * gains.std(ddof=1) / math.sqrt(p))
    return Estimate(mean, max(mean - half, 0.0), mean + half)


def levels(scores: np.ndarray) -> np.ndarray:
    """[L ≥ 2] values of a reward that takes only a few, ascending; empty for any other.

    Scores that are all 0, or all 1, are taken for those of a reward of both: the other has not come up yet.
    """
    scored = scores[~np.isnan(scores)]
    found = np.unique(scored)
    if len(found) == 1 and found[0] in (0.0, 1.0):
        return np.array([0.0, 1.0])
    few = 2 <= len(found) <= max(2, len(scored) // SAMPLES_PER_LEVEL) < len(scored)
    return found if few else np.empty(0)


def gain_of_levels(scores: np.ndarray, values: np.ndarray, k: int, level: float = 0.95) -> Estimate:
    """The gain of a reward of few levels: Σ over neighbouring levels of their distance × the gain of reaching the upper one.

    Whether a sample reaches a level is a thing of 0 and 1, so each term is a ``binary_gain``. Bounds are summed as well, as if
    all levels erred together.

    Args:
        values: [L] the levels, ascending.
    """
    scored = ~np.isnan(scores)
    terms = []
    for lower, upper in itertools.pairwise(values):
        reached = ((scores >= upper) & scored).sum(axis=1)
        term = binary_gain(reached, scored.sum(axis=1), k, level)
        terms.append((upper - lower) * np.array([term.value, term.low, term.high]))
    return Estimate(*np.sum(terms, axis=0).tolist())


def binary_gain(right: np.ndarray, of: np.ndarray, k: int, level: float = 0.95) -> Estimate:
    """E[1 − (1 − p)^k] − E p of prompts whose chance p of a right sample differs, as their posterior mean and interval.

    The chances are those of a beta distribution, of which only the counts are seen. 1 − (1 − p̄)^k with the mean chance would be
    too much: from prompts that are always right or always wrong nothing is gained, however many samples there are. The prior is
    Jeffreys' for the mean, and for the correlation ρ = 1/(a + b + 1) of two samples of a prompt has the density 1/(2√ρ).

    Args:
        right: [P] samples that are right.
        of: [P] samples that are scored.
        k: samples of which the best is taken.
        level: posterior probability of the interval.

    Source: Skellam 1948 for the beta-binomial distribution.
    """
    from scipy.special import betaln

    a, b = _beta_grid()
    normal = betaln(a, b)
    counts, times = np.unique(np.stack([right, of - right], axis=1), axis=0, return_counts=True)
    rows = [n * (betaln(a + good, b + bad) - normal) for (good, bad), n in zip(counts, times, strict=True)]
    likelihood = np.sum(rows, axis=0)  # [grid], log
    weight = np.exp(likelihood - likelihood.max())
    weight /= weight.sum()
    gains = 1 - np.exp(betaln(a, b + k) - normal) - a / (a + b)
    order = np.argsort(gains)
    reached = np.cumsum(weight[order])
    low, high = (gains[order][min(np.searchsorted(reached, q), len(gains) - 1)] for q in (0.5 - level / 2, 0.5 + level / 2))
    return Estimate(float(weight @ gains), max(float(low), 0.0), float(high))


@cache
def _beta_grid() -> tuple[np.ndarray, np.ndarray]:
    """a and b of beta distributions, [grid] each, at points that are equally likely by the prior of ``binary_gain``."""
    middle = (np.arange(GRID) + 0.5) / GRID
    mean, correlation = (each.ravel() for each in np.meshgrid(np.sin(middle * math.pi / 2) ** 2, middle**2))
    return mean * (1 / correlation - 1), (1 - mean) * (1 / correlation - 1)
