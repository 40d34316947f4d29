"""Advantages over the other samples of the same prompt, without a critic: GRPO's and RLOO's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from raft_core.errors import ConfigError
from raft_core.metrics.spread import flat
from raft_core.types import Advantages, Selection

Scale = Literal["group", "batch", "none"]
TINY = 1e-4  # added to a deviation, in reward units


@dataclass(frozen=True)
class GroupAdvantages:
    """A = (score − mean of the prompt's scores) / deviation, of every scored sample. To be used with ``PolicyGradient``.

    A sample that is not scored counts for nothing. A prompt whose scores are all alike, or that has a single scored sample, has
    advantages of 0 and teaches nothing; the metric ``reward/flat_prompts`` says how many these are.

    Args:
        scale: what is divided by: the deviation of the prompt's scores (``group``), which makes prompts count alike whatever
            their spread; that of all scores of the round (``batch``), usual for pictures; or nothing (``none``), for a
            prompt with almost no spread is otherwise blown up.
        clip: bound of an advantage's size; null = none. 5 is usual for pictures.
        drop_flat: leave out prompts whose scores are all alike, which costs no step; false keeps them with an advantage of 0,
            so that they count in a batch's mean and feel the price of divergence.

    Source: GRPO (2402.03300), section 4.1.2, with deviations of n − 1 and 1e-4 added as in TRL. ``none``: Dr. GRPO
    (2503.20783). ``batch`` and ``clip``: Flow-GRPO (2505.05470), code, whose deviation is of n. ``drop_flat``: DAPO
    (2503.14476), dynamic sampling, which draws others in their place.
    """

    scale: Scale = "group"
    clip: float | None = None
    drop_flat: bool = True
    produces: ClassVar[type[Selection]] = Advantages
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        mistakes = []
        if self.scale not in ("group", "batch", "none"):
            mistakes.append(f"selector.scale is {self.scale!r}: use 'group', 'batch' or 'none'")
        if self.clip is not None and not 0 < self.clip < math.inf:
            mistakes.append(f"selector.clip is {self.clip}, but must be positive; null = not clipped")
        if mistakes:
            raise ConfigError(mistakes)

    def __call__(self, scores: np.ndarray) -> Advantages:
        centred = centre(scores)
        if self.scale != "none":
            centred = centred / (self._deviation(scores) + TINY)
        if self.clip is not None:
            centred = centred.clip(-self.clip, self.clip)
        return advantages(scores, centred, self.drop_flat)

    def _deviation(self, scores: np.ndarray) -> np.ndarray:
        """[P, 1] or [] deviation, 0 of a single score."""
        if self.scale == "group":
            return np.array([deviation(row) for row in scores]).reshape(-1, 1)
        return np.array(deviation(scores.ravel()))


@dataclass(frozen=True)
class Rloo:
    """A = score − mean of the *other* scored samples of the prompt. To be used with ``PolicyGradient``.

    That is n/(n − 1) times the distance to the mean of all n, without dividing by a deviation. A sample that is not scored
    counts for nothing; one that is the only scored one of its prompt has no others, and is left out.

    Args:
        drop_flat: leave out prompts whose scores are all alike; see ``GroupAdvantages``.

    Source: RLOO (2402.14740), eq. 9; REINFORCE with a leave-one-out baseline. Its price of divergence, 0.05 per nat, belongs to
    the reward: ``KLPenalised``.
    """

    drop_flat: bool = True
    produces: ClassVar[type[Selection]] = Advantages
    least_k: ClassVar[int] = 2

    def __call__(self, scores: np.ndarray) -> Advantages:
        n = (~np.isnan(scores)).sum(axis=1, keepdims=True)
        factor = np.divide(n, n - 1, out=np.full(n.shape, np.nan), where=n > 1)  # NaN: no others
        return advantages(scores, centre(scores) * factor, self.drop_flat)


def centre(scores: np.ndarray) -> np.ndarray:
    """[P, K] minus the mean of each row's scored entries; NaN where not scored. Rows that are all alike are exactly 0."""
    n = (~np.isnan(scores)).sum(axis=1, keepdims=True)
    mean = np.nansum(scores, axis=1, keepdims=True) / np.maximum(n, 1)
    return np.where(flat(scores)[:, None], np.where(np.isnan(scores), np.nan, 0.0), scores - mean)


def deviation(values: np.ndarray) -> float:
    """Standard deviation (n − 1) of what is scored; 0 of a single value or of none."""
    scored = values[~np.isnan(values)]
    return float(scored.std(ddof=1)) if len(scored) > 1 else 0.0


def advantages(scores: np.ndarray, values: np.ndarray, drop_flat: bool) -> Advantages:
    """The selection of those advantages [P, K] that are there."""
    there = ~np.isnan(values)
    if drop_flat:
        there &= ~flat(scores)[:, None]
    index = np.flatnonzero(there)
    return Advantages(index=index, advantage=values.ravel()[index].astype(np.float64))
