"""All samples above a quantile of their prompt, which rises from round to round."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from raft_core.errors import ConfigError
from raft_core.types import Selection, Weighted


@dataclass(frozen=True)
class AboveQuantile:
    """Every sample whose score reaches a quantile of its prompt's scores. To be used with ``Sft``.

    The quantile rises evenly from ``first`` in round 1 to ``last`` in round ``over``, and stays there. The best sample of a
    prompt is always kept, and so is all that ties with it.

    Args:
        first: quantile in round 1, in [0, 1): 0.7 keeps about the best 30 %.
        last: from round ``over`` on; null = as the first.
        over: rounds over which it rises, ≥ 1.

    Source: ReST (2308.08998), whose filter rises with every improve step. Differs: improve steps on the same samples are passes
    (``trainer.epochs``) here, and the quantile is of each prompt.
    """

    first: float = 0.7
    last: float | None = 0.95
    over: int = 5
    produces: ClassVar[type[Selection]] = Weighted

    def __post_init__(self) -> None:
        mistakes = [
            f"selector.{name} is {value}, but must be in [0, 1): 0.7 keeps about the best 30 %"
            for name, value in (("first", self.first), ("last", self.last))
            if value is not None and not 0 <= value < 1
        ]
        if self.over < 1:
            mistakes.append(f"selector.over is {self.over}, but must be at least 1 round")
        if mistakes:
            raise ConfigError(mistakes)

    def at_round(self, rnd: int) -> AboveQuantile:
        """The same with the quantile of a round, for good."""
        if self.last is None:
            return self
        done = 1.0 if self.over == 1 else min(1.0, (rnd - 1) / (self.over - 1))
        return replace(self, first=self.first + done * (self.last - self.first), last=None)

    def __call__(self, scores: np.ndarray) -> Weighted:
        filled = np.where(np.isnan(scores).all(axis=1, keepdims=True), 0.0, scores)  # no warning of rows without a score
        bound = np.nanquantile(filled, self.first, axis=1, keepdims=True) if scores.size else scores
        index = np.flatnonzero(scores >= bound)  # NaN is not
        return Weighted(index=index, weight=np.ones(len(index)))
