"""Every scored sample, with its score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.types import Scored, Selection


@dataclass(frozen=True)
class EveryScore:
    """Every scored sample, with its score as it is: the reward at the end from which a critic makes advantages.

    Source: ReFT (2401.08967), section 3.2.
    """

    produces: ClassVar[type[Selection]] = Scored

    def __call__(self, scores: np.ndarray) -> Scored:
        flat = scores.ravel()
        index = np.flatnonzero(~np.isnan(flat))
        return Scored(index=index, score=flat[index].astype(np.float64))
