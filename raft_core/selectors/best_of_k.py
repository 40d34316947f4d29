"""Which samples to train on, from their scores alone.

All selectors are pure functions of ``scores`` [P, K] (NaN = not scored) with flat indices ``p * K + j`` as their result. Ties
keep the sample that comes first. A prompt with nothing scored contributes nothing; when nothing at all is scored the selection
is empty. Permuting the samples of a prompt or the prompts permutes what is selected and changes nothing else, ties apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.errors import ConfigError
from raft_core.types import Selection, Weighted


def best_of_each(scores: np.ndarray) -> np.ndarray:
    """[≤ P] flat index of the best scored sample of each prompt that has one, in prompt order; first wins a tie."""
    k = scores.shape[1]
    rows = np.flatnonzero(~np.isnan(scores).all(axis=1))
    columns = np.nanargmax(scores[rows], axis=1) if len(rows) else np.empty(0, dtype=np.int64)
    return rows * k + columns


def top(scores: np.ndarray, among: np.ndarray, n: int) -> np.ndarray:
    """[≤ n] those of the flat indices ``among`` with the highest scores, best first; earlier wins a tie."""
    values = scores.ravel()[among]
    order = np.argsort(-values, kind="stable")
    return among[order][:n]


def _unweighted(index: np.ndarray) -> Weighted:
    return Weighted(index=np.asarray(index, dtype=np.int64), weight=np.ones(len(index)))


@dataclass(frozen=True)
class BestOfK:
    """The best of each prompt's K samples: RAFT's local ranking, acceptance rate 1/K.

    Source: RAFT (2304.06767), algorithm 1.
    """

    produces: ClassVar[type[Selection]] = Weighted

    def __call__(self, scores: np.ndarray) -> Weighted:
        return _unweighted(best_of_each(scores))


@dataclass(frozen=True)
class TopFraction:
    """The best fraction of all samples of the round, whichever prompt they answer: RAFT's global ranking.

    Wrong when scores are not comparable across prompts: easy prompts then crowd out the others.

    Args:
        fraction: part of the scored samples to keep, in (0, 1]; at least one is kept. RAFT uses 1/K.

    Source: RAFT (2304.06767), appendix on global ranking.
    """

    fraction: float
    produces: ClassVar[type[Selection]] = Weighted

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"selector.fraction is {self.fraction}, but must be in (0, 1]: 0.1 keeps the best tenth")

    def __call__(self, scores: np.ndarray) -> Weighted:
        scored = np.flatnonzero(~np.isnan(scores.ravel()))
        # The tolerance keeps ceil() from rounding 10 × 0.1 up to 2.
        return _unweighted(top(scores, scored, math.ceil(self.fraction * len(scored) - 1e-9)))


@dataclass(frozen=True)
class BestThenTop:
    """The best of each prompt, and of these winners the n best: the hybrid of the authors' diffusion notebook.

    Args:
        n: winners to keep, ≥ 1; all of them when there are fewer.

    Source: RAFT's diffusion notebook (10 prompts × 10 images, then the best 8 of the 10 winners).
    """

    n: int
    produces: ClassVar[type[Selection]] = Weighted

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"selector.n is {self.n}, but at least 1 winner has to be kept")

    def __call__(self, scores: np.ndarray) -> Weighted:
        return _unweighted(top(scores, best_of_each(scores), self.n))
