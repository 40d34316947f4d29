"""In-flight rejection: a completion that cannot be chosen any more is given up before it is finished."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from raft_core.errors import RaftError, RewardError
from raft_core.rewards.function import find_function
from raft_text.options import Rejection


class Watcher:
    """Looks at the beginnings of completions and says which are hopeless.

    Args:
        rejection: the rules.

    Raises:
        ConfigError: the function that bounds rewards cannot be found.
    """

    def __init__(self, rejection: Rejection):
        self.every = rejection.every
        self._patterns = [re.compile(pattern) for pattern in rejection.patterns]
        self._bound: Callable | None = find_function(rejection.bound) if rejection.bound is not None else None
        self._below = -np.inf if rejection.below is None else rejection.below

    def due(self, count: int) -> bool:
        """Whether completions of so many tokens are looked at."""
        return count % self.every == 0

    def hopeless(
        self, numbers: Sequence[int], prompts: Sequence[str], beginnings: Sequence[str], finished: Mapping[int, object]
    ) -> list[bool]:
        """As ``__call__``; each completion is judged by itself, whatever became of the others."""
        return self(prompts, beginnings)

    def __call__(self, prompts: Sequence[str], beginnings: Sequence[str]) -> list[bool]:
        """Whether each completion is hopeless, by its beginning.

        Raises:
            RewardError: the bound is not one number per completion, or its function fails: the wrong ones would be given up.
        """
        hopeless = [any(pattern.search(text) for pattern in self._patterns) for text in beginnings]
        if self._bound is None:
            return hopeless
        try:
            bounds = np.asarray(self._bound(list(prompts), list(beginnings)), dtype=np.float64)
        except RaftError:
            raise
        except Exception as error:
            raise RewardError(f"rejection.bound failed: {type(error).__name__}: {error}") from error
        if bounds.shape != (len(beginnings),):
            raise RewardError(
                f"rejection.bound returned shape {bounds.shape} for {len(beginnings)} completions; it must return one for each"
            )
        low = bounds < self._below  # NaN gives up nothing
        return [found or bool(bound) for found, bound in zip(hopeless, low, strict=True)]
