"""All samples that are good enough: self-training's selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.errors import ConfigError
from raft_core.types import Selection, Weighted


@dataclass(frozen=True)
class AtLeast:
    """Every sample whose score reaches a bound, at most so many of each prompt, the first ones.

    Args:
        score: the bound, in reward units, the best being high: 1 keeps the right answers of ``AnswerReward``.
        most: of one prompt; null = all. ReFT's offline self-training keeps 10 different ones (see ``Distinct``).

    Source: ReFT (2401.08967), section 4.2: the self-training baselines.
    """

    score: float
    most: int | None = None
    produces: ClassVar[type[Selection]] = Weighted

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ConfigError(f"selector.most is {self.most}, but at least 1 sample has to be kept; null keeps all")

    def __call__(self, scores: np.ndarray) -> Weighted:
        good = scores >= self.score  # NaN is not
        if self.most is not None:
            good &= good.cumsum(axis=1) <= self.most
        index = np.flatnonzero(good.ravel())
        return Weighted(index=index, weight=np.ones(len(index)))
