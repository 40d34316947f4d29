"""Reinforce-Rej: right and wrong samples alike, of the prompts that have both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.errors import ConfigError
from raft_core.types import Advantages, Selection


@dataclass(frozen=True)
class ReinforceRej:
    """Advantage 1 for a right sample and −1 for a wrong one; a prompt whose samples are all right, or all wrong, is dropped.

    A prompt is judged by its scored samples. To be used with ``PolicyGradient``.

    Args:
        right: the least score of a right sample. For a reward of which less is better, the negative of the score.

    Source: Reinforce-Rej (2504.11343). Its rewards are ±1: with 0 in place of −1 the wrong samples would carry no gradient.
    """

    right: float = 1.0
    produces: ClassVar[type[Selection]] = Advantages

    def __post_init__(self) -> None:
        if not math.isfinite(self.right):
            raise ConfigError(f"selector.right is {self.right}, but must be a score, as 1.0 is")

    def __call__(self, scores: np.ndarray) -> Advantages:
        scored = ~np.isnan(scores)
        right = scored & (scores >= self.right)
        wrong = scored & ~right
        mixed = right.any(axis=1, keepdims=True) & wrong.any(axis=1, keepdims=True)  # [P, 1]
        index = np.flatnonzero(scored & mixed)
        return Advantages(index=index, advantage=np.where(right.ravel()[index], 1.0, -1.0))
