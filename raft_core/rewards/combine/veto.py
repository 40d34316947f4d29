"""A reward with a veto."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import Combinator, Reward, RewardInfo
from raft_core.types import Sample


class Threshold:
    """The reward, unless another one is out of bounds: then the sample is vetoed.

    A constraint in place of one more term: no amount of beauty makes up for the wrong language. A sample that the veto could
    not score is not scored.

    Args:
        reward: what counts otherwise, in its own unit and direction.
        veto: what decides.
        at_least: the veto's score, in its own unit, must not be lower; null = no such bound.
        at_most: nor higher; null = no such bound.
        vetoed: score of what is vetoed, in the unit of ``reward``; null = none, so that it is never selected and counts as
            unscored. Pairs and advantages learn from bad samples: for these give a low number.
        name: column of the result; by default the reward's with ``_or_veto`` behind it.
    """

    def __init__(
        self,
        reward: Reward | Combinator,
        veto: Reward | Combinator,
        at_least: float | None = None,
        at_most: float | None = None,
        vetoed: float | None = None,
        name: str | None = None,
    ):
        self.parts = (reward, veto)
        self.at_least = -math.inf if at_least is None else at_least
        self.at_most = math.inf if at_most is None else at_most
        self.vetoed = math.nan if vetoed is None else vetoed
        own = name or f"{reward.info.name}_or_veto"
        mistakes = []
        if at_least is None and at_most is None:
            mistakes.append(f"{own} has neither at_least nor at_most: give a bound for {veto.info.name}")
        if not self.at_least <= self.at_most:
            mistakes.append(f"{own} wants {veto.info.name} at least {at_least} and at most {at_most}: no number is both")
        if vetoed is not None and not math.isfinite(vetoed):
            mistakes.append(f"{own}.vetoed is {vetoed}, but must be a number, or null for none")
        if reward.info.name == veto.info.name and reward is not veto:
            mistakes.append(f"{own} has two rewards named {veto.info.name!r}: give one another name")
        if own in (reward.info.name, veto.info.name):
            mistakes.append(f"{own!r} is the name of the result and of one of its rewards: give one of them another name")
        if mistakes:
            raise ConfigError(mistakes)
        bounds = [f"≥ {at_least:g}"] if at_least is not None else []
        bounds += [f"≤ {at_most:g}"] if at_most is not None else []
        condition = f"{veto.info.name} {' and '.join(bounds)}"
        self.info = RewardInfo(
            name=own,
            scale=f"{reward.info.name} where {condition}",
            higher_is_better=reward.info.higher_is_better,
            relative=reward.info.relative,
        )
        self.unscored_reason = f"vetoed: not {condition}"

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN where a part is NaN, and where vetoed unless that has a score."""
        values, deciding = (scores[part.info.name] for part in self.parts)
        allowed = (deciding >= self.at_least) & (deciding <= self.at_most)
        result = np.where(allowed, values, self.vetoed)
        return np.where(np.isnan(values) | np.isnan(deciding), np.nan, result)
