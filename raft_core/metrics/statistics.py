"""How sure a before/after difference is, when the samples of a prompt are not independent.

Arrays are [P, K]: P prompts, K paired samples each, NaN = this pair has no score. Prompts are the units that are resampled:
what is claimed is about further prompts, not about further samples of the same ones.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; ``low`` and ``high`` are NaN when there is too little to give one."""

    value: float
    low: float
    high: float


def mean_interval(values: np.ndarray, seed: int, level: float = 0.95) -> Estimate:
    """Mean over all scored pairs with a BCa bootstrap interval over prompts.

    Args:
        values: [P, K].
        seed: of the resampling.
        level: coverage aimed at. With fewer than about ten prompts the true coverage is lower.

    Source: Efron 1987 (BCa), by ``scipy.stats.bootstrap``. Differs: clusters, not values, are resampled; the mean is
    Σ sums / Σ counts, so prompts with missing pairs weigh less.
    """
    sums, counts = np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if not len(sums):
        return Estimate(np.nan, np.nan, np.nan)
    mean = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Estimate(mean, np.nan, np.nan)
    if np.ptp(sums / counts) < 1e-12 * max(1.0, abs(mean)):  # nothing varies: resampling gives the same mean every time
        return Estimate(mean, mean, mean)
    low, high = _bootstrap_ratio(sums, counts, seed, level)
    return Estimate(mean, low, high)


def _bootstrap_ratio(sums: np.ndarray, counts: np.ndarray, seed: int, level: float) -> tuple[float, float]:
    from scipy.stats import bootstrap

    def interval(method: str) -> tuple[float, float]:
        found = bootstrap(
            (sums, counts),
            lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
            n_resamples=RESAMPLES,
            paired=True,
            vectorized=True,
            confidence_level=level,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        return float(found.low), float(found.high)

    with warnings.catch_warnings():
        # BCa says that it degenerates (a jackknife that is constant) and answers NaN; percentiles then still stand.
        warnings.simplefilter("ignore")
        low, high = interval("BCa")
        return (low, high) if np.isfinite([low, high]).all() else interval("percentile")


def wins(before: np.ndarray, after: np.ndarray, higher_is_better: bool = True) -> np.ndarray:
    """[P, K] 1 where after is better, ½ where they are equal, 0 where it is worse, NaN where one is missing."""
    better = np.sign(after - before) * (1 if higher_is_better else -1)
    return (better + 1) / 2


def win_rate(won: np.ndarray, level: float = 0.95) -> Estimate:
    """Share of pairs won, ties counted half, with an interval that lets the pairs of a prompt win or lose together.

    Args:
        won: [P, K] of 0, ½, 1 or NaN, from ``wins``.
        level: coverage aimed at.
    """
    return clustered_rate(won.ravel(), rows_of(won), level)


def rows_of(values: np.ndarray) -> np.ndarray:
    """[P·K] the prompt of each value of [P, K]."""
    return np.repeat(np.arange(len(values)), values.shape[1])


def clustered_rate(hits: np.ndarray, prompts: np.ndarray, level: float = 0.95) -> Estimate:
    """Mean of values in [0, 1], with Wilson's interval at the number of independent values that they are worth.

    Values of one prompt are right or wrong together, so n of them tell less than n independent ones: n is divided by the design
    effect. That effect is itself estimated, from the prompts, so Student's quantile replaces the normal one, with the effective
    number of prompts less one as its degrees of freedom. Where no two values share a prompt this is Wilson's interval.

    Args:
        hits: [n] in [0, 1], NaN = not counted.
        prompts: [n] which prompt each value belongs to, as integers.
        level: coverage aimed at. ``tests/core/metrics/test_statistics.py`` measures what is reached.

    Source: Wilson 1927; Korn and Graubard 1998 for the effective size and its degrees of freedom. Differs: Wilson's interval in
    place of Clopper and Pearson's, a jackknife variance, and Kish's effective number of prompts, for their sizes may differ
    widely.
    """
    sums, counts = cluster_sums(hits, prompts)
    n = counts.sum()
    if not n:
        return Estimate(np.nan, np.nan, np.nan)
    rate = float(np.clip(sums.sum() / n, 0, 1))
    if counts.max() == 1:
        return Estimate(rate, *wilson(rate, n, level))
    freedom = max(n**2 / np.square(counts).sum() - 1, 1)
    return Estimate(rate, *wilson(rate, n / design_effect(hits, prompts), level, freedom))


def design_effect(hits: np.ndarray, prompts: np.ndarray) -> float:
    """By how much the variance of a rate exceeds that of as many independent values, in [1, Σ n_p² / n].

    The upper end is the effect of prompts whose values are copies of one another. It is also taken where nothing can be
    estimated, with one prompt or with values that are all alike: each prompt then counts about once.

    Args:
        hits: [n] in [0, 1], NaN = not counted.
        prompts: [n] which prompt each value belongs to, as integers.

    Source: Kish 1965.
    """
    sums, counts = cluster_sums(hits, prompts)
    n = counts.sum()
    largest = float(np.square(counts).sum() / n)
    if len(counts) < 2 or np.nanvar(hits) < 1e-12:
        return largest
    rate = sums.sum() / n
    return float(np.clip(jackknife_variance(sums, counts) / (rate * (1 - rate) / n), 1.0, largest))


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean over all scored values as a statement about further prompts; NaN with fewer than two prompts.

    It holds the variance between prompts as well as that within them. From [[1, 3], [4, 6]] the prompts' means are 2 and 5, so
    √(4.5 / 2) = 1.5.

    Args:
        values: [P, K], NaN = not scored.
    """
    return math.sqrt(jackknife_variance(*cluster_sums(values.ravel(), rows_of(values))))


def cluster_sums(values: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([P] sum, [P] count) of the values of each cluster that has any; NaN counts nowhere."""
    scored = ~np.isnan(values)
    _, members = np.unique(clusters[scored], return_inverse=True)
    return np.bincount(members, weights=values[scored]).astype(float), np.bincount(members).astype(float)


def jackknife_variance(sums: np.ndarray, counts: np.ndarray) -> float:
    """Variance of Σ sums / Σ counts, each cluster left out in turn; NaN with fewer than two clusters.

    Of equal clusters it is the sample variance of their means over their number. Of unequal ones it is a little larger than the
    linearised variance, which forgets that a large cluster draws the mean to itself.

    Source: Efron and Stein 1981.
    """
    n, p = counts.sum(), len(counts)
    if p < 2:
        return math.nan
    without = (sums.sum() - sums) / (n - counts)  # [P]
    return float(np.square(without - sums.sum() / n).sum() * (p - 1) / p)


def wilson(rate: float, n: float, level: float = 0.95, freedom: float = math.inf) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Args:
        rate: in [0, 1].
        n: > 0, need not be whole.
        level: coverage aimed at.
        freedom: degrees of freedom of an ``n`` that is itself estimated.

    Source: Wilson 1927, eq. 8.
    """
    from scipy.stats import t

    z = float(t.ppf(0.5 + level / 2, freedom))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
