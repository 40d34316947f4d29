"""Several rewards for one thing, where their disagreement is a warning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import Combinator, Reward, RewardInfo
from raft_core.rewards.combine.parts import all_upward, part_mistakes
from raft_core.types import Sample

How = Literal["mean", "minimum", "penalised"]
HOWS = ("mean", "minimum", "penalised")


class Ensemble:
    """Several rewards that measure the same thing on the same scale, taken together; higher is better.

    What one of them likes and the others do not is likely to be its blind spot, which a policy finds sooner or later. Parts of
    different scales belong into ``Weighted`` or ``RankAggregate``.

    Args:
        rewards: the parts; each is also recorded under its own name. Turned where lower is better.
        how: ``mean``; ``minimum``, the most sceptical; ``penalised``, mean − alpha × standard deviation (n) among the parts.
        alpha: of ``penalised``, ≥ 0.
        at_least: parts that must have scored a sample, by which it is then judged; all of them if left out.
        name: column of the result.

    Source: Coste et al. 2023 (2310.02743): worst-case and uncertainty-weighted optimisation. Differs: the standard deviation in
    place of the variance, so that alpha has no unit.
    """

    def __init__(
        self,
        rewards: Sequence[Reward | Combinator],
        how: How = "mean",
        alpha: float = 1.0,
        at_least: int | None = None,
        name: str = "ensemble",
    ):
        self.parts = tuple(rewards)
        self.how = how
        self.alpha = alpha
        self.at_least = len(self.parts) if at_least is None else at_least
        mistakes = part_mistakes(self.parts, name, "an ensemble")
        if how not in HOWS:
            mistakes.append(f"{name}.how is {how!r}, but must be one of {', '.join(HOWS)}")
        if not 0 <= alpha < math.inf:
            mistakes.append(f"{name}.alpha is {alpha}, but must be a number that is not negative")
        if self.parts and not 1 <= self.at_least <= len(self.parts):
            mistakes.append(f"{name}.at_least is {at_least}, but must be from 1 to {len(self.parts)}, the number of rewards")
        if mistakes:
            raise ConfigError(mistakes)
        term = f"mean − {alpha:g} × standard deviation" if how == "penalised" else how
        scale = f"{term} of {', '.join(part.info.name for part in self.parts)}"
        self.info = RewardInfo(name=name, scale=scale, relative=all(part.info.relative for part in self.parts))

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN where fewer than ``at_least`` parts have scored."""
        turned = all_upward(self.parts, scores)  # [parts, N]
        scored = ~np.isnan(turned)
        count = scored.sum(axis=0)
        enough = count >= self.at_least
        divisor = np.maximum(count, 1)
        mean = np.where(scored, turned, 0).sum(axis=0) / divisor
        if self.how == "minimum":
            result = np.where(scored, turned, np.inf).min(axis=0, initial=np.inf)
        elif self.how == "penalised":
            deviation = np.sqrt((np.where(scored, turned - mean, 0) ** 2).sum(axis=0) / divisor)
            result = mean - self.alpha * deviation
        else:
            result = mean
        return np.where(enough, result, np.nan)
