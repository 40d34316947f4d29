"""How sure a before/after difference is, when the samples of a prompt are not independent.

Arrays are [P, K]: P prompts, K paired samples each, NaN = this pair has no score. Prompts are the units that are resampled:
what is claimed is about further prompts, not about further samples of the same ones.
"""

from __future__ import annotations

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
    """Share of pairs won, ties counted half, with a Wilson interval at the effective number of pairs.

    Args:
        won: [P, K] of 0, ½, 1 or NaN, from ``wins``.
        level: coverage aimed at.

    Source: Wilson 1927. Differs: n is divided by the design effect (Kish 1965), since samples of a prompt win or lose together.
    """
    n = int((~np.isnan(won)).sum())
    if not n:
        return Estimate(np.nan, np.nan, np.nan)
    rate = float(np.nanmean(won))
    return Estimate(rate, *wilson(rate, n / design_effect(won), level))


def design_effect(values: np.ndarray) -> float:
    """By how much the variance of the mean exceeds that of as many independent values, in [1, mean pairs per prompt].

    When all values are alike nothing can be estimated and the cautious end is taken: each prompt counts once.
    """
    scored = ~np.isnan(values)
    counts = scored.sum(axis=1)
    values, scored, counts = values[counts > 0], scored[counts > 0], counts[counts > 0]
    n, p = counts.sum(), len(counts)
    largest = float(n / p)
    spread = np.nanvar(values)
    if p < 2 or spread < 1e-12:
        return largest
    residual = np.nansum(values - np.nanmean(values), axis=1)  # [P] what each prompt adds to the error of the mean
    clustered = (residual**2).sum() * p / (p - 1) / n**2
    return float(np.clip(clustered / (spread / n), 1.0, largest))


def wilson(rate: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; n need not be whole.

    Source: Wilson 1927, eq. 8.
    """
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + level / 2))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
