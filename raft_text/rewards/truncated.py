"""What a completion is worth that was cut off at its longest length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import Combinator, Reward, RewardInfo
from raft_core.types import Sample
from raft_text.rewards.texts import is_truncated


class Truncated:
    """A reward, unless the completion was cut off at ``sampling.max_new_tokens``: then it is not scored, or penalised.

    A completion that was cut off has said nothing to its end, and what it has said so far may still please. One that is not
    scored is never selected and counts in no baseline. To have it scored and count, but not be trained on, mask it in the
    objective (``MaskTruncated``). A text that no policy drew is taken as whole.

    Args:
        reward: what counts otherwise, in its own unit and direction, which the result keeps.
        score: of a completion that was cut off; null = none.
        penalty: what it loses instead, in reward units, > 0; null = it is worth ``score``.
        name: column of the result; by default the reward's with ``_finished`` behind it.
    """

    unscored_reason = "cut off at sampling.max_new_tokens"

    def __init__(
        self, reward: Reward | Combinator, score: float | None = None, penalty: float | None = None, name: str | None = None
    ):
        self.parts = (reward,)
        self.score = math.nan if score is None else score
        self.penalty = penalty
        own = name or f"{reward.info.name}_finished"
        mistakes = []
        if own == reward.info.name:
            mistakes.append(f"{own!r} is the name of the result and of its reward: give one of them another name")
        if score is not None and penalty is not None:
            mistakes.append(f"{own} has both a score and a penalty: give one of the two, or neither for not scored")
        if score is not None and not math.isfinite(score):
            mistakes.append(f"{own}.score is {score}, but must be a number, or null for none")
        if penalty is not None and not 0 < penalty < math.inf:
            mistakes.append(f"{own}.penalty is {penalty}, but must be positive")
        if mistakes:
            raise ConfigError(mistakes)
        worth = "not scored" if score is None else f"{score:g}"
        worth = worth if penalty is None else f"{penalty:g} worse"
        self.info = RewardInfo(
            name=own,
            scale=f"{reward.info.name}, {worth} where cut off",
            higher_is_better=reward.info.higher_is_better,
            relative=reward.info.relative,
        )

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN where the reward is, and where cut off unless that has a score."""
        values = scores[self.parts[0].info.name]
        cut = np.array([is_truncated(sample) for sample in samples], dtype=bool)
        if self.penalty is not None:
            return values - np.where(cut, self.penalty if self.info.higher_is_better else -self.penalty, 0.0)
        return np.where(cut & ~np.isnan(values), self.score, values)
