"""A reward that is given once for the same thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raft_core.errors import ConfigError
from raft_core.media.medium import medium_of
from raft_core.protocols import Combinator, Reward, RewardInfo
from raft_core.types import Sample


class Distinct:
    """The reward of each output the first time that it is drawn for a prompt; a repetition is not scored, so never selected.

    Texts are the same when they differ in nothing but what is white at their ends, pictures when every pixel is the same.

    Args:
        reward: what counts.
        name: column of the result; by default the reward's with ``_distinct`` behind it.

    Source: ReFT (2401.08967), section 4.2: offline self-training keeps unique reasoning.
    """

    unscored_reason = "a repetition of an earlier sample of the same prompt"

    def __init__(self, reward: Reward | Combinator, name: str | None = None):
        self.parts = (reward,)
        own = name or f"{reward.info.name}_distinct"
        if own == reward.info.name:
            raise ConfigError(f"{own!r} is the name of the result and of its reward: give one of them another name")
        self.info = RewardInfo(
            name=own,
            scale=reward.info.scale,
            higher_is_better=reward.info.higher_is_better,
            relative=reward.info.relative,
        )

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN where the reward is, and for repetitions."""
        seen: set[tuple[str, Any]] = set()
        values = scores[self.parts[0].info.name].copy()
        for i, sample in enumerate(samples):
            if sample.output is None:
                continue  # a failed sample, which no reward scored
            key = sample.prompt.id, medium_of(sample.output).likeness(sample.output)
            if key in seen:
                values[i] = np.nan
            seen.add(key)
        return values
