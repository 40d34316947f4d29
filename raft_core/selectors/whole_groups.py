"""Whole groups: all samples of a prompt with their scores, for losses that rank them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.metrics.spread import flat
from raft_core.types import Groups, Selection


@dataclass(frozen=True)
class WholeGroups:
    """All samples of each prompt, with their scores. To be used with ``Rrhf`` or ``BonBon``. An item is a group, not a sample.

    Args:
        drop_flat: leave out prompts whose scored samples all score alike, for there is nothing to rank; false keeps those that
            have a scored sample.
    """

    drop_flat: bool = True
    produces: ClassVar[type[Selection]] = Groups
    least_k: ClassVar[int] = 2

    def __call__(self, scores: np.ndarray) -> Groups:
        there = ~np.isnan(scores).all(axis=1)
        rows = np.flatnonzero(there & ~flat(scores) if self.drop_flat else there)
        return Groups(
            index=rows[:, None] * scores.shape[1] + np.arange(scores.shape[1]), reward=scores[rows].astype(np.float64)
        )
