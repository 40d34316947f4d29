"""What choosing the best of K is worth, before anything is trained."""

from __future__ import annotations

import math
from functools import cache

import numpy as np


@cache
def expected_max_normal(k: int) -> float:
    """c_K: the expected maximum of k independent standard normals.

    c_1 = 0, c_2 = 1/√π = 0.5642, c_3 = 3/(2√π) = 0.8463, c_4 = 1.0294, c_8 = 1.4236, c_32 = 2.0697.

    Source: David and Nagaraja, Order Statistics, 3.1.
    """
    if k < 1:
        raise ValueError(f"k is {k}, but at least one sample is needed")
    from scipy.integrate import quad
    from scipy.special import log_ndtr

    def density_times_x(x: float) -> float:
        return float(x * k * np.exp(-x * x / 2 - math.log(2 * math.pi) / 2 + (k - 1) * log_ndtr(x)))

    return float(quad(density_times_x, -12, 12, epsabs=1e-12, limit=200)[0])


def expected_max(values: np.ndarray, k: int) -> float:
    """Unbiased estimate of the expected maximum of k fresh samples, from n ≥ k samples at hand; NaN when fewer are scored.

    The mean of the maximum over all C(n, k) subsets. In ascending order the i-th value (from 1) is the maximum of
    C(i − 1, k − 1) of them: from 1, 2, 3 and k = 2 the subsets' maxima are 2, 3, 3, so 8/3.

    Args:
        values: [n], NaN = not scored.

    Source: Chen et al. 2021, the estimator behind pass@k, for values that are not 0 or 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}, but at least one sample is needed")
    ordered = np.sort(values[~np.isnan(values)])
    n = len(ordered)
    if n < k:
        return math.nan
    from scipy.special import gammaln

    i = np.arange(k, n + 1)
    # Binomials by their logarithms: C(64, 32) is beyond exact float64 and C(2000, 1000) beyond float64 at all.
    log_subsets = gammaln(i) - gammaln(k) - gammaln(i - k + 1)
    log_all = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return float(np.exp(log_subsets - log_all) @ ordered[k - 1 :])


def gaussian_gain(std_within: float, k: int) -> float:
    """σ·c_K: the same for normally distributed rewards, from their standard deviation within a prompt alone."""
    return std_within * expected_max_normal(k)
