"""Rewards that vote by ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import Combinator, Reward, RewardInfo
from raft_core.rewards.combine.parts import all_upward, by_prompt, part_mistakes, weight_mistakes
from raft_core.types import Sample


class RankAggregate:
    """The mean rank of a sample among the samples of its prompt, over several rewards; higher is better.

    Ranks know no scales and no outliers. Of n samples that all parts have scored, the worst has rank 1/2n and the best
    1 − 1/2n; equal scores share their mean rank. The mean over a prompt is always ½, so progress shows in the parts alone. A
    sample that any part could not score is not scored, and the others are ranked without it.

    Args:
        rewards: the parts; each is also recorded under its own name. Lower ranks higher where lower is better.
        weights: one per part, > 0; equal if left out. Only their ratios matter.
        name: column of the mean rank.

    Source: Borda's count.
    """

    def __init__(self, rewards: Sequence[Reward | Combinator], weights: Sequence[float] | None = None, name: str = "mean_rank"):
        self.parts = tuple(rewards)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.parts)
        mistakes = part_mistakes(self.parts, name, "an aggregate of ranks")
        mistakes += weight_mistakes(self.weights, self.parts, name, lowest=0.0)
        if mistakes:
            raise ConfigError(mistakes)
        scale = f"mean rank by {', '.join(part.info.name for part in self.parts)} within a prompt, 0 to 1"
        self.info = RewardInfo(name=name, scale=scale, relative=True)

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN wherever a part is NaN."""
        from scipy.stats import rankdata

        turned = all_upward(self.parts, scores)  # [parts, N]
        prompt = by_prompt(samples)
        scored = ~np.isnan(turned).any(axis=0)
        weights = np.asarray(self.weights) / sum(self.weights)
        result = np.full(len(prompt), np.nan)
        for each in np.unique(prompt[scored]):
            rows = np.flatnonzero(scored & (prompt == each))
            ranks = (rankdata(turned[:, rows], axis=1) - 0.5) / len(rows)  # [parts, n]
            result[rows] = weights @ ranks
        return result
