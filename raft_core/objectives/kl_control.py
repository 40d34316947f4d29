"""How much divergence from the reference costs, and how that price is adapted to what divergence is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from raft_core.errors import ConfigError

MOST = 0.2  # of the relative error, per update
MOST_UPDATES = 1000  # of a round: a factor of 10^79, or of 10^-97; further ones would leave the range of a float


@dataclass(frozen=True)
class KlPenalty:
    """The price β of a nat of divergence, fixed or adapted.

    Args:
        beta: β at first, reward units per nat, ≥ 0. 0 = no penalty; ReFT's collapses then.
        target: nats per sample that are wanted; null keeps β as it is.
        horizon: samples over which β may change by ``MOST`` of itself.

    Source: ReFT (2401.08967): fixed, 0.01 for programs and 0.05 for words. Ziegler et al. 2019 (1909.08593), section 2.2:
    adapted, β₀ 0.15 and target 6 for style.
    """

    beta: float = 0.05
    target: float | None = None
    horizon: int = 10_000

    def __post_init__(self) -> None:
        mistakes = []
        if not 0 <= self.beta < math.inf:
            mistakes.append(f"kl.beta is {self.beta}, but must not be negative")
        if self.target is not None and not 0 < self.target < math.inf:
            mistakes.append(f"kl.target is {self.target}, but must be positive; null keeps beta as it is")
        if self.target is not None and self.beta == 0:
            mistakes.append("kl.beta is 0, which kl.target can only multiply: begin with a positive one, such as 0.1")
        if self.horizon < 1:
            mistakes.append(f"kl.horizon is {self.horizon}, but must be at least 1 sample")
        if mistakes:
            raise ConfigError(mistakes)

    def adapted(self, beta: float, kl: float, samples: int) -> float:
        """β after samples of a mean divergence of ``kl`` nats: β·(1 + e·n/horizon), e = clip(kl/target − 1, ±0.2).

        That is for n ≤ horizon. More samples are taken one horizon after the other, as if they had come in so many rounds: the
        formula alone would fall short of them where β rises, and make it negative from five horizons on where it falls.

        Worked example, target 6, horizon 10000, β 0.15: 1000 samples at 12 nats have e = 0.2, so β becomes 0.15·1.02 = 0.153;
        at 5.4 nats e = −0.1 and β becomes 0.15·0.99 = 0.1485; 25000 at 0 nats make it 0.15·0.8·0.8·0.9 = 0.0864.

        Source: ``AdaptiveKLController`` of OpenAI's lm-human-preferences, whose rounds have 512 samples. Differs: beyond a
        horizon, as above.
        """
        if self.target is None:
            return beta
        error = min(max(kl / self.target - 1, -MOST), MOST)
        whole, rest = divmod(samples, self.horizon)
        return beta * (1 + error) ** min(whole, MOST_UPDATES) * (1 + error * rest / self.horizon)
