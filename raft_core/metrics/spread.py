"""Whether there is anything to tell apart among the samples of a prompt, and how many of them count."""

from __future__ import annotations

import math

import numpy as np


def flat(scores: np.ndarray) -> np.ndarray:
    """[P] whether a prompt's scored samples all score alike; true of one alone, or of none.

    Args:
        scores: [P, K], NaN = not scored.
    """
    low = np.where(np.isnan(scores), np.inf, scores).min(axis=1, initial=np.inf)
    high = np.where(np.isnan(scores), -np.inf, scores).max(axis=1, initial=-np.inf)
    return low >= high


def flat_fraction(scores: np.ndarray) -> float:
    """Part of the prompts with a scored sample whose samples all score alike; NaN where there are none.

    Scores [[1, 1], [1, 2], [3, NaN], [NaN, NaN]]: the first and the third of three, 2/3.
    """
    scored = ~np.isnan(scores).all(axis=1)
    return float(flat(scores)[scored].mean()) if scored.any() else math.nan


def effective_number(weights: np.ndarray) -> np.ndarray:
    """[P] how many of a row's entries count in effect, (Σw)²/Σw²: 1 of a single one, n of n alike; 0 of none.

    Weights (3, 1): 16/10 = 1.6.
    """
    squares = (weights**2).sum(axis=1)
    return np.divide(weights.sum(axis=1) ** 2, squares, out=np.zeros(len(weights)), where=squares > 0)
