"""How well a reward agrees with preferences, whether its confidence is earned, and what it might really follow.

Scores of preferences are a list of [n] arrays, one score per candidate, higher is better, NaN = not scored.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raft_core.metrics.statistics import clustered_rate
from raft_core.preferences.preference import Preference

BINS = 10


def correct(scores: np.ndarray, preference: Preference) -> float:
    """1 when the chosen candidate has the highest score, a share of it when others have the same, else 0.

    NaN for a tie of the labels, and when a candidate is not scored.
    """
    if preference.choice is None or np.isnan(scores).any():
        return math.nan
    best = scores == scores.max()
    return float(best[preference.choice] / best.sum())


@dataclass(frozen=True)
class Rate:
    """A proportion with its 95 % interval, which holds for further prompts.

    Attributes:
        n: values that count.
        prompts: different prompts among them. Values of one prompt agree more than others, so they tell less.
        value: their mean, in [0, 1].
        low, high: of the interval; see ``raft_core.metrics.statistics.clustered_rate``.
    """

    n: int
    prompts: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: Sequence[float] | np.ndarray, prompts: Sequence[Hashable]) -> Rate:
        """Mean of values in [0, 1]; NaN = not counted.

        Args:
            hits: [n].
            prompts: [n] what each value is about.
        """
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        owners = np.array([numbers[prompt] for prompt in prompts], dtype=np.int64)
        values = np.asarray(hits, dtype=np.float64)
        counted = ~np.isnan(values)
        estimate = clustered_rate(values, owners)
        return cls(int(counted.sum()), len(np.unique(owners[counted])), estimate.value, estimate.low, estimate.high)


def accuracy(scores: Sequence[np.ndarray], preferences: Sequence[Preference]) -> Rate:
    """How often the chosen candidate is scored highest; ties of the labels do not count."""
    hits = [correct(row, preference) for row, preference in zip(scores, preferences, strict=True)]
    return Rate.of(hits, [preference.prompt for preference in preferences])


def by_group(scores: Sequence[np.ndarray], preferences: Sequence[Preference]) -> dict[str, Rate]:
    """Accuracy of each group, the largest first; empty when there are none."""
    rows: dict[str, list[int]] = {}
    for number, preference in enumerate(preferences):
        if preference.group:
            rows.setdefault(preference.group, []).append(number)
    rates = {group: accuracy([scores[i] for i in own], [preferences[i] for i in own]) for group, own in rows.items()}
    return dict(sorted(rates.items(), key=lambda item: (-item[1].n, item[0])))


def differences(values: Sequence[np.ndarray], preferences: Sequence[Preference]) -> np.ndarray:
    """[M] value of the chosen − value of another candidate, for every other one; ties of the labels give none."""
    found = [
        row[preference.choice] - row[i]
        for row, preference in zip(values, preferences, strict=True)
        if preference.choice is not None
        for i in range(len(row))
        if i != preference.choice
    ]
    return np.array(found, dtype=np.float64)


@dataclass(frozen=True)
class Bin:
    """Comparisons whose confidence lies in [low, high): mean confidence, how often they were right, how many."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """Reliability of p = σ(scale · (r_w − r_l)).

    Attributes:
        scale: what differences of scores were multiplied by.
        ece: expected calibration error, Σ (n_bin / n) · |accuracy − confidence|, in [0, 1].
        log_loss: mean −log p, nats; ln 2 = 0.693 is a coin.
        bins: those that hold anything, over confidences from ½ to 1.
    """

    scale: float
    ece: float
    log_loss: float
    bins: tuple[Bin, ...]


def calibration(deltas: np.ndarray, scale: float = 1.0, bins: int = BINS) -> Calibration:
    """Calibration from score differences chosen − other.

    The prediction is the candidate with the higher score, its confidence max(p, 1 − p), and it is right when Δ > 0 (half
    right at Δ = 0). From Δ = (ln 3, −ln 3), scale 1: both confidences are ¾, half of them right, so the error is ¼.

    Args:
        deltas: [M], NaN = not scored.
        scale: NaN = there is none, and then no calibration.

    Source: Guo et al. 2017 (1706.04599), eq. 3, with bins over [½, 1].
    """
    z = scale * deltas[~np.isnan(deltas)]
    if not len(z) or np.isnan(scale):
        return Calibration(scale, math.nan, math.nan, ())
    confidence = 1 / (1 + np.exp(-np.abs(z)))  # [M] in [½, 1]
    right = (np.sign(z) + 1) / 2
    edges = np.linspace(0.5, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    found = [
        Bin(float(edges[b]), float(edges[b + 1]), float(confidence[own].mean()), float(right[own].mean()), int(own.sum()))
        for b in range(bins)
        if (own := place == b).any()
    ]
    ece = sum(b.n * abs(b.accuracy - b.confidence) for b in found) / len(z)
    return Calibration(scale, float(ece), float(np.logaddexp(0, -z).mean()), tuple(found))


def best_scale(deltas: np.ndarray) -> float:
    """The scale ≥ 0 of maximum likelihood for σ(scale · Δ): the unit that makes any score's differences log-odds.

    NaN without a difference; bounded where every comparison is right, whose best scale would be infinite.
    """
    from scipy.optimize import minimize_scalar

    z = deltas[~np.isnan(deltas)]
    unit = float(np.abs(z).mean()) if len(z) else 0.0
    if not unit:
        return math.nan
    found = minimize_scalar(lambda s: float(np.logaddexp(0, -s * z / unit).mean()), bounds=(0, 50), method="bounded")
    return float(found.x) / unit  # type: ignore[union-attr]


def within_prompt_correlation(scores: Sequence[np.ndarray], sizes: Sequence[np.ndarray]) -> float:
    """Spearman's correlation of scores and sizes, the mean of each preference taken off both: 1 = it follows size alone.

    NaN when one of the two never varies.
    """
    from scipy.stats import spearmanr

    a, b = (
        np.concatenate([row - row.mean() for row in rows if len(row)]) if len(rows) else np.empty(0) for rows in (scores, sizes)
    )
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    found: Any = spearmanr(a, b)
    return float(found.statistic)


def agreement(scores: Mapping[str, Sequence[np.ndarray]]) -> dict[str, dict[str, float]]:
    """How often two rewards put two candidates of a preference in the same order; a tie of one of them counts half.

    Args:
        scores: reward → scores of all preferences.

    Returns:
        The matrix by names; NaN where nothing was scored by both.
    """
    orders = {name: _orders(rows) for name, rows in scores.items()}
    table: dict[str, dict[str, float]] = {name: {} for name in orders}
    for a, b in itertools.product(orders, repeat=2):
        same = (orders[a] * orders[b] + 1) / 2
        same = np.where((orders[a] == 0) & (orders[b] == 0), 1.0, same)
        same = same[~np.isnan(same)]
        table[a][b] = float(same.mean()) if len(same) else math.nan
    return table


def _orders(rows: Sequence[np.ndarray]) -> np.ndarray:
    """[M] −1, 0, 1 for every two candidates of every preference; NaN where one is not scored."""
    found = [np.sign(row[i] - row[j]) for row in rows for i, j in itertools.combinations(range(len(row)), 2)]
    return np.array(found, dtype=np.float64)


def label_scores(preferences: Sequence[Preference]) -> list[np.ndarray]:
    """The labels as if they were scores, for ``agreement``."""
    return [np.array(preference.target, dtype=np.float64) for preference in preferences]
