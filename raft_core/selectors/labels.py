"""Labels from scores: which samples are good and which are bad, each for itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.errors import ConfigError
from raft_core.types import Labels, Selection


@dataclass(frozen=True)
class ThresholdLabels:
    """Every scored sample, good if its score reaches a bound and bad if not. To be used with ``Kto``.

    Args:
        score: least score of a good sample. For a reward of which less is better, the negative of the score.

    Source: KTO (2402.01306), section 4.2: scores made binary by a threshold.
    """

    score: float
    produces: ClassVar[type[Selection]] = Labels

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ConfigError(f"selector.score is {self.score}, but must be a score, as 1.0 is")

    def __call__(self, scores: np.ndarray) -> Labels:
        index = np.flatnonzero(~np.isnan(scores))
        return Labels(index=index, good=scores.ravel()[index] >= self.score)


@dataclass(frozen=True)
class MedianLabels:
    """Samples above the median of their prompt are good, samples below it bad, samples at it left out. To be used with ``Kto``.

    Needs no bound and has good and bad of every prompt whose scores differ; a prompt whose samples all score alike has none.
    """

    produces: ClassVar[type[Selection]] = Labels
    least_k: ClassVar[int] = 2

    def __call__(self, scores: np.ndarray) -> Labels:
        filled = np.where(np.isnan(scores).all(axis=1, keepdims=True), 0.0, scores)  # no warning of rows without a score
        distance = scores - np.nanmedian(filled, axis=1, keepdims=True) if scores.size else scores
        index = np.flatnonzero((distance > 0) | (distance < 0))
        return Labels(index=index, good=distance.ravel()[index] > 0)
