"""Preference pairs from scores: of two samples of one prompt, the better one is chosen and the worse one rejected.

A pair needs a gap: two samples with the same score make none, however many there are. So a prompt with one scored sample, or
with scores that are all alike, makes no pair.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raft_core.errors import ConfigError
from raft_core.rng import numpy_rng
from raft_core.types import Pairs, Selection


@dataclass(frozen=True)
class BestVsWorst:
    """Of each prompt one pair, its best sample against its worst. To be used with ``Dpo``.

    Ties for the best or for the worst keep the first sample. A prompt whose samples all score alike makes no pair.

    Args:
        gap: scores of a pair differ by more than this, in reward units.

    Source: iterative and semi-online DPO (2506.21495): the pair of the highest and the lowest reward.
    """

    gap: float = 0.0
    produces: ClassVar[type[Selection]] = Pairs
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        refuse_gap(self.gap)

    def __call__(self, scores: np.ndarray) -> Pairs:
        k = scores.shape[1]
        rows = np.flatnonzero(~np.isnan(scores).all(axis=1))
        some = scores[rows]
        best = np.nanargmax(some, axis=1) if len(rows) else rows
        worst = np.nanargmin(some, axis=1) if len(rows) else rows
        margin = some[np.arange(len(rows)), best] - some[np.arange(len(rows)), worst]
        wide = margin > self.gap
        return Pairs(chosen=(rows * k + best)[wide], rejected=(rows * k + worst)[wide], margin=margin[wide])


@dataclass(frozen=True)
class AllPairs:
    """Every pair of a prompt's samples whose scores differ by more than ``gap``. To be used with ``Dpo``.

    K samples that all differ make K(K − 1)/2 pairs: 28 of 8.

    Args:
        gap: in reward units. RS-DPO keeps pairs with σ((r − r')/τ) > η, which is the gap τ·log(η/(1 − η)).
        most: pairs of one prompt, those with the widest gaps, earlier samples first; null = all.

    Source: RS-DPO (2402.10038), whose threshold is ``gap``.
    """

    gap: float = 0.0
    most: int | None = None
    produces: ClassVar[type[Selection]] = Pairs
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        refuse_gap(self.gap)
        if self.most is not None and self.most < 1:
            raise ConfigError(f"selector.most is {self.most}, but at least 1 pair of a prompt has to be kept; null keeps all")

    def __call__(self, scores: np.ndarray) -> Pairs:
        return as_pairs(scores, (self._of_row(row) for row in scores))

    def _of_row(self, row: np.ndarray) -> np.ndarray:
        pairs = pairs_of(row, self.gap)
        if self.most is None:
            return pairs
        widest = np.argsort(row[pairs[:, 1]] - row[pairs[:, 0]], kind="stable")[: self.most]
        return pairs[np.sort(widest)]


@dataclass(frozen=True)
class RandomPairs:
    """Of each prompt a few of its pairs, drawn at random without repeats. To be used with ``Dpo``.

    What is drawn follows from ``seed`` and the prompt's scores alone, so the same scores give the same pairs.

    Args:
        n: pairs of one prompt; all of them where there are fewer.
        gap: scores of a pair differ by more than this, in reward units.
        seed: another one draws other pairs.
    """

    n: int = 1
    gap: float = 0.0
    seed: int = 0
    produces: ClassVar[type[Selection]] = Pairs
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        refuse_gap(self.gap)
        if self.n < 1:
            raise ConfigError(f"selector.n is {self.n}, but at least 1 pair of a prompt has to be drawn")

    def __call__(self, scores: np.ndarray) -> Pairs:
        return as_pairs(scores, (self._of_row(row) for row in scores))

    def _of_row(self, row: np.ndarray) -> np.ndarray:
        pairs = pairs_of(row, self.gap)
        # Of the scored samples alone, so that a group is drawn from alike whatever it is padded to.
        digest = hashlib.blake2b(row[~np.isnan(row)].astype(np.float64).tobytes(), digest_size=8).hexdigest()
        order = numpy_rng(self.seed, "pairs", digest).permutation(len(pairs))
        return pairs[np.sort(order[: self.n])]


def pairs_of(row: np.ndarray, gap: float) -> np.ndarray:
    """[M, 2] (better, worse) places of every two scored samples whose scores differ by more than ``gap``.

    Scores (1, 3, NaN, 1), gap 0: (1, 0) and (1, 3).
    """
    with np.errstate(invalid="ignore"):  # NaN is not above
        better, worse = np.nonzero(row[:, None] - row[None, :] > gap)
    return np.stack([better, worse], axis=1)


def as_pairs(scores: np.ndarray, rows: Iterator[np.ndarray]) -> Pairs:
    """The selection of (better, worse) places [M, 2] of each row of scores [P, K]."""
    k = scores.shape[1]
    flat = [number * k + pairs for number, pairs in enumerate(rows)]
    pairs = np.concatenate(flat) if flat else np.empty((0, 2), dtype=np.int64)
    chosen, rejected = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    values = scores.ravel().astype(np.float64)
    return Pairs(chosen=chosen, rejected=rejected, margin=values[chosen] - values[rejected])


def refuse_gap(gap: float) -> None:
    """Raise if a gap is none."""
    if not 0 <= gap < math.inf:
        raise ConfigError(f"selector.gap is {gap}, but must be a difference of scores, 0 or more; 0 drops ties alone")
