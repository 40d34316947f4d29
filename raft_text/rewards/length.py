"""How long a text is, or how far from where it should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from raft_core.errors import ConfigError, RewardError
from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_text.rewards.texts import completions

Unit = Literal["words", "characters", "tokens"]


class Length:
    """Minus the distance of the completion's length to the limits, 0 within them; without limits the length itself.

    Args:
        at_least: lower limit; null = none.
        at_most: upper limit; null = none. Both alike = a target.
        unit: ``words`` are what whitespace separates; ``tokens`` those that a policy of text drew, the end of text included.
        name: column in the store and label in the report.
    """

    def __init__(self, at_least: int | None = None, at_most: int | None = None, unit: Unit = "words", name: str = "length"):
        mistakes = [
            f"{limit} is {value}, but must not be negative"
            for limit, value in (("at_least", at_least), ("at_most", at_most))
            if value is not None and value < 0
        ]
        if at_least is not None and at_most is not None and at_most < at_least:
            mistakes.append(f"at_most is {at_most}, below at_least, which is {at_least}")
        if unit not in ("words", "characters", "tokens"):
            mistakes.append(f"unit is {unit!r}, but must be 'words', 'characters' or 'tokens'")
        if mistakes:
            raise ConfigError(mistakes)
        self.at_least = at_least
        self.at_most = at_most
        self.unit: Unit = unit
        free = at_least is None and at_most is None
        limits = f"{at_least or 0}…{'' if at_most is None else at_most}"
        self.info = RewardInfo(name=name, scale=unit if free else f"−{unit} outside {limits}, 0 is best")

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            RewardError: tokens are to be counted, and samples that no policy drew have none.
        """
        texts = completions(samples)
        lengths = np.array([self._length(s, text) for s, text in zip(samples, texts, strict=True)], dtype=np.float64)
        if self.at_least is None and self.at_most is None:
            return lengths
        return -np.abs(lengths - np.clip(lengths, self.at_least, self.at_most))

    def _length(self, sample: Sample, text: str) -> int:
        if self.unit != "tokens":
            return len(text.split()) if self.unit == "words" else len(text)
        if "tokens" not in sample.meta:
            raise RewardError(
                "unit is 'tokens', but these samples were not drawn by a policy of text: count words or characters"
            )
        return sample.meta["tokens"]
