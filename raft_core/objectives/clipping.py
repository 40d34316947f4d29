"""PPO's clipped surrogate, shared by every objective that follows a policy gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raft_core.errors import ConfigError

if TYPE_CHECKING:
    import torch


def clipped_surrogate(
    log_prob: torch.Tensor, old_log_prob: torch.Tensor, advantage: torch.Tensor, low: float, high: float | None = None
) -> torch.Tensor:
    """−min(s·A, clip(s, 1 − low, 1 + high)·A) of each action, s = π/π_old, to be minimised.

    Worked example, low = high = 0.2: s = 1.5, A = 2 gives −2.4 without a gradient; s = 1.5, A = −2 gives 3, for what is worse
    than it looked is never clipped away; s = 0.5, A = −2 gives 1.6 without a gradient.

    Args:
        log_prob: [...] of the actions, nats.
        old_log_prob: [...] the same when they were drawn; no gradient.
        advantage: [...] no gradient.
        low: how far s may fall below 1, in [0, 1].
        high: how far it may rise above 1; None = as far as ``low``. A higher one slows the collapse of the entropy.

    Source: Schulman et al. 2017 (1707.06347), eq. 7; the two bounds are DAPO's clip-higher (2503.14476).
    """
    ratio = (log_prob - old_log_prob).exp()
    clipped = ratio.clamp(1 - low, 1 + (low if high is None else high))
    return -(ratio * advantage).minimum(clipped * advantage)


def clip_mistakes(low: float, high: float | None, where: str = "objective") -> list[str]:
    """Clip ranges that make no sense, in words."""
    found = []
    if not 0 < low <= 1:
        found.append(f"{where}.clip is {low}, but must be in (0, 1]: 0.2 lets the ratio go from 0.8 to 1.2")
    if high is not None and not 0 < high < math.inf:
        found.append(f"{where}.clip_high is {high}, but must be positive; null = the same as clip")
    return found


def refuse(mistakes: list[str]) -> None:
    """Raise all mistakes at once, if there are any."""
    if mistakes:
        raise ConfigError(mistakes)
