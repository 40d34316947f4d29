"""Scores of different rewards on one scale.

A sum of rewards follows the one that varies most: 1 × an aesthetic (± 0.3 within a prompt) + 1 × a CLIP score (± 2) is a CLIP
score. Divided by how far each of them varies, weights mean what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Scale = Literal["own", "prompt", "running"]
SCALES = ("own", "prompt", "running")
# Rounding alone makes equal numbers differ by about 1e-16 of their size; that is no spread.
NO_SPREAD = 1e-12


def spread(values: np.ndarray) -> float:
    """Standard deviation (n) of scored values; 0 for equal ones, even where rounding makes it a little more."""
    if len(values) < 2:
        return 0.0
    found = float(values.std())
    return found if found > NO_SPREAD * float(np.abs(values).max()) else 0.0


def within_prompts(values: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """(x − mean) / spread of the prompt's scored samples; 0 where these are all equal or one alone, NaN where x is.

    Args:
        values: [N], NaN = not scored.
        prompt: [N] int, the prompt of each.
    """
    result = np.full(len(values), np.nan)
    scored = ~np.isnan(values)
    for each in np.unique(prompt):
        rows = np.flatnonzero(scored & (prompt == each))
        group = values[rows]
        size = spread(group)
        result[rows] = (group - group.mean()) / size if size else 0.0
    return result


@dataclass(frozen=True)
class Moments:
    """What is known of a reward's scores.

    Attributes:
        centre: mean of the first round that has scores.
        spread: root of the mean variance within a round, over these rounds; > 0.
    """

    centre: float
    spread: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (values - self.centre) / self.spread


def moments(rounds: Sequence[np.ndarray]) -> Moments:
    """A reward's moments over rounds, oldest first, NaN = not scored.

    The centre stays that of the first round: a constant changes no selection, and a level that moves along would hide every
    gain. The spread is that within rounds, for the gain from round to round is no spread either.
    """
    scored = [values[~np.isnan(values)] for values in rounds]
    scored = [values for values in scored if len(values)]
    if not scored:
        return Moments(0.0, 1.0)
    variance = math.fsum(spread(values) ** 2 for values in scored) / len(scored)
    return Moments(float(scored[0].mean()), math.sqrt(variance) if variance > 0 else 1.0)


Earlier = Sequence[Mapping[str, np.ndarray]]  # columns of the rounds before, oldest first


def running(values: np.ndarray, name: str, sign: float, earlier: Earlier) -> np.ndarray:
    """Scores [N] by the moments of the rounds before; by their own where there are none.

    Args:
        name: column of these scores in the rounds before, which hold them as the reward gave them.
        sign: −1 where lower is better and ``values`` are turned.
    """
    known = [sign * columns[name] for columns in earlier if name in columns and not np.isnan(columns[name]).all()]
    return moments(known or [values])(values)
