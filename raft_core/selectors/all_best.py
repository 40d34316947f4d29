"""Every sample that ties for the best of its prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.types import Selection, Weighted


@dataclass(frozen=True)
class AllBest:
    """Every sample that has the best score of its prompt: with rewards of 0 and 1 all positives, not one of them.

    Args:
        least: a prompt whose best score is lower contributes nothing; null = every prompt that is scored. 1.0 where 1 means
            right: otherwise a prompt whose samples are all wrong teaches its mistakes. For a reward of which less is better,
            the negative of the score.

    Source: RAFT++ (2504.11343), I[r = max r].
    """

    least: float | None = None
    produces: ClassVar[type[Selection]] = Weighted

    def notes(self) -> list[str]:
        """That mistakes are trained on where nothing says what is right."""
        if self.least is not None:
            return []
        return [
            "selector.least is null, so of a prompt whose samples are all wrong every one is trained on: with a reward that "
            "tells right from wrong, set it to the least score of a right sample, such as 1.0"
        ]

    def __call__(self, scores: np.ndarray) -> Weighted:
        best = np.where(np.isnan(scores), -np.inf, scores).max(axis=1, keepdims=True)  # [P, 1]
        chosen = (scores == best) & (best >= (-np.inf if self.least is None else self.least))  # NaN equals nothing
        index = np.flatnonzero(chosen)
        return Weighted(index=index, weight=np.ones(len(index)))
