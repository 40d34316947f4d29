"""How different the samples of a prompt are, from unit-length features."""

from __future__ import annotations

import math

import numpy as np

from raft_core.types import Grouping


def pairwise_distance(features: np.ndarray) -> float:
    """Mean of 1 − cosine over all pairs, in [0, 2]; NaN with fewer than two samples.

    Three vectors of which two are the same and the third is orthogonal: pairs 0, 1, 1, so 2/3.

    Args:
        features: [n, D] of unit length.
    """
    n = len(features)
    if n < 2:
        return math.nan
    # Σ over ordered pairs i ≠ j of f_i·f_j is |Σ f|² − Σ |f|².
    total = np.asarray(features, dtype=np.float64).sum(axis=0)
    return float(1 - (total @ total - np.square(features, dtype=np.float64).sum()) / (n * (n - 1)))


def diversity_within(features: np.ndarray, groups: Grouping) -> float:
    """Mean over prompts of the distance between a prompt's samples, of the prompts with at least two; NaN without any.

    Args:
        features: [N, D] of unit length, prompt-major.
    """
    distances = [pairwise_distance(group) for group in groups.split(features) if len(group) > 1]
    return float(np.mean(distances)) if distances else math.nan


def vendi_within(features: np.ndarray, groups: Grouping) -> float:
    """Mean over prompts of the Vendi score of a prompt's samples, of the prompts with at least two; NaN without any.

    Args:
        features: [N, D] of unit length, prompt-major.
    """
    scores = [vendi(group) for group in groups.split(features) if len(group) > 1]
    return float(np.mean(scores)) if scores else math.nan


def vendi(features: np.ndarray) -> float:
    """Vendi score: the effective number of different samples, in [1, n]; NaN without samples.

    n copies of one sample score 1, n orthogonal ones n; of three with two the same and one orthogonal the kernel's eigenvalues
    are 2/3 and 1/3, so exp(0.6365) = 1.890.

    Args:
        features: [n, D] of unit length; the kernel is their cosine.

    Source: Friedman and Dieng 2023, eq. 2.
    """
    n = len(features)
    if n == 0:
        return math.nan
    from scipy.special import entr

    # Gram and covariance matrix have the same non-zero eigenvalues: squared singular values.
    eigenvalues = np.linalg.svd(np.asarray(features, dtype=np.float64), compute_uv=False) ** 2 / n
    return float(np.exp(entr(eigenvalues).sum()))
