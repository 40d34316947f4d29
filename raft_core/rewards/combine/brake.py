"""A brake: divergence costs more while a judge falls, and less again when it has recovered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import Combinator, Policy, Reward
from raft_core.rewards.combine.kl import KLPenalised
from raft_core.types import Sample


class Braked:
    """The reward less β × log-ratio to the start, with a β that a judge drives.

    After each round in which the judge's mean lies below that of round 1 by more than ``by``, β is multiplied by ``factor``;
    after each in which it does not, it is divided again, down to the β of the beginning. So a policy that games its reward is
    held back, and let go when what the judge measures is back. The judge is not trained on: it only says how dear divergence
    is. β follows from the stored scores of the rounds before, so a resumed run brakes alike. To end a run instead, take the
    rule ``JudgeDrop``.

    Args:
        reward: r, turned where lower is better.
        judge: name of one of the run's judges.
        by: how far it may fall, in its own units, ≥ 0.
        beta: β of the beginning and the least, > 0, reward units per unit of log-ratio; see ``KLPenalised``.
        factor: > 1.
        most: steps that β may be raised by, ≥ 1.
        higher_is_better: whether the judge is better when it is higher.
        draws: per sample, averaged, ≥ 1.
        name: column of the penalised reward; by default the reward's with ``_braked`` behind it.
    """

    def __init__(
        self,
        reward: Reward | Combinator,
        judge: str,
        by: float,
        beta: float = 0.01,
        factor: float = 2.0,
        most: int = 8,
        higher_is_better: bool = True,
        draws: int = 4,
        name: str | None = None,
    ):
        self._price = KLPenalised(reward, beta, draws, name or f"{reward.info.name}_braked")
        self.parts = self._price.parts
        self.info = self._price.info
        mistakes = []
        if not beta > 0:
            mistakes.append(f"the brake's beta is {beta}, but must be positive: it is what the brake multiplies")
        if not 0 <= by < math.inf:
            mistakes.append(f"the brake's by is {by}, but must be a number that is not negative")
        if not 1 < factor < math.inf:
            mistakes.append(f"the brake's factor is {factor}, but must be above 1: 2 doubles beta")
        if most < 1:
            mistakes.append(f"the brake's most is {most}, but at least 1 step is needed")
        if mistakes:
            raise ConfigError(mistakes)
        self.follows = judge
        self.by = by
        self.start = beta
        self.factor = factor
        self.most = most
        self.higher_is_better = higher_is_better
        self.recalls = True

    @property
    def beta(self) -> float:
        """What a unit of divergence costs now."""
        return self._price.beta

    def recall(self, earlier: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Set β by the judge's means in the rounds before."""
        sign = 1 if self.higher_is_better else -1
        means = [sign * mean(columns[self.follows]) for columns in earlier if self.follows in columns]
        self._price.beta = self.start * self.factor ** steps(means, self.by, self.most)

    def attach(self, policy: Policy) -> None:
        """Take on the policy whose divergence is penalised."""
        self._price.attach(policy)

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N], as of ``KLPenalised`` with the β of now.

        Raises:
            RewardError: no policy is attached.
        """
        return self._price.combine(scores, samples)


def steps(means: Sequence[float], by: float, most: int) -> int:
    """How many steps the brake is on after rounds with these means of the judge, higher is better.

    One more after each round that lies below the first by more than ``by``, one less after each that does not; a round that
    nobody could judge changes nothing. From 5, 3, 3, 5 with ``by`` 1: 0, 1, 2, 1.
    """
    found = 0
    for value in means[1:]:
        if math.isnan(value) or math.isnan(means[0]):
            continue
        found = min(found + 1, most) if means[0] - value > by else max(found - 1, 0)
    return found


def mean(values: np.ndarray) -> float:
    """Mean of what is scored; NaN when nothing is."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else math.nan
