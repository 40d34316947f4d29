"""A reward that is given once for the same thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import Combinator, Reward, RewardInfo
from raft_core.types import Sample


class Distinct:
    """The reward of each output the first time that it is drawn for a prompt; a repetition is not scored, so never selected.

    Repetitions are told by their text without what is white at its ends, so this is for outputs that are texts.

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
        """[N]; NaN where the reward is, and for repetitions.

        Raises:
            ConfigError: the outputs are no texts.
        """
        seen: set[tuple[str, str]] = set()
        values = scores[self.parts[0].info.name].copy()
        for i, sample in enumerate(samples):
            if not isinstance(sample.output, str):
                raise ConfigError(f"{self.info.name} tells repetitions of texts, but the outputs are no texts: leave it out")
            key = sample.prompt.id, sample.output.strip()
            if key in seen:
                values[i] = np.nan
            seen.add(key)
        return values
