"""Whether a figure of a run rises, falls or keeps its level, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

ROUNDING = 1e-12  # relative: what it can make of equal values


@dataclass(frozen=True)
class Trend:
    """Change per round.

    Attributes:
        slope: of the straight line through the rounds.
        low, high: bounds of the true slope, each one-sided.
    """

    slope: float
    low: float
    high: float


def trend(values: np.ndarray, errors: np.ndarray, confidence: float) -> Trend | None:
    """The line of least squares through the values of consecutive rounds, or None where its uncertainty is unknown.

    The slope is as unsure as the larger of two things says: the standard errors of the values, and the scatter of the values
    about the line. The first cannot be small by chance, the second sees what no sampling explains, such as a policy that swings
    from round to round. Where an error is missing the scatter alone is left, and Student's quantile allows for the few rounds
    that it is taken from.

    Four rounds 0, 1, 0, 1 have the slope 0.2 and the scatter √(0.8 / 2); with Σ t² = 5 the slope's error is √(0.4 / 5) = 0.283.

    Args:
        values: [T] finite.
        errors: [T] standard error of each value, NaN = unknown.
        confidence: of each bound, in (½, 1).
    """
    n = len(values)
    time = np.arange(n) - (n - 1) / 2
    square = float((time**2).sum())
    slope = float((time * values).sum() / square)
    residual = values - values.mean() - slope * time
    scatter = math.sqrt(float((residual**2).sum()) / (n - 2) / square) if n > 2 else math.nan
    sampling = math.sqrt(float((errors**2 * time**2).sum())) / square
    if math.isfinite(sampling):
        half = NormalDist().inv_cdf(confidence) * max(sampling, scatter if n > 2 else 0.0)
    elif n > 2:
        from scipy.stats import t

        half = float(t.ppf(confidence, n - 2)) * scatter
    else:
        return None
    half += ROUNDING * float(np.abs(values).max())
    return Trend(slope, slope - half, slope + half)
