"""How much a text repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_text.rewards.texts import completions


def repeated_fraction(text: str, n: int) -> float:
    """1 − distinct / all n-grams of lower-cased words: 0 when none occurs twice, or when there is none."""
    words = text.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class Repetition:
    """The fraction of a completion's n-grams that have occurred in it before; lower is better.

    Within a completion only: that all completions are alike is what the diversity of the report shows.

    Args:
        n: words per n-gram, ≥ 1.
        name: column in the store and label in the report.

    Source: 1 − distinct-n (Li et al. 2016, 1510.03055).
    """

    def __init__(self, n: int = 3, name: str = "repetition"):
        if n < 1:
            raise ConfigError(f"n is {n}, but an n-gram has at least 1 word")
        self.n = n
        self.info = RewardInfo(name=name, scale=f"fraction of repeated {n}-grams, 0…1", higher_is_better=False)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([repeated_fraction(text, self.n) for text in completions(samples)], dtype=np.float64)
