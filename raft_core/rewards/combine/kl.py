"""The reward less what it cost in divergence from the start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.errors import ConfigError, RewardError
from raft_core.metrics.divergence import log_ratios
from raft_core.protocols import Combinator, Policy, Reward, RewardInfo
from raft_core.rewards.combine.parts import upward
from raft_core.types import Sample


class KLPenalised:
    """r − β·(log π − log π_ref): the reward less what the sample cost in divergence from the start.

    It changes which samples are chosen and nothing else: the loss stays the likelihood of what was chosen. The log-ratio comes
    from ``divergence.log_ratios``: for text under the distributions that are sampled from, temperature included; for diffusion
    from ``Policy.nll`` with draws that policy and reference share, a denoising surrogate and noisy, hence several draws.

    Args:
        reward: r, turned where lower is better.
        beta: β ≥ 0, reward units per unit of log-ratio. RAFT uses 0.005–0.1 for text, in nats.
        draws: per sample, averaged, ≥ 1; each costs two forward passes.
        name: column of the penalised reward; by default the reward's with ``_kl`` behind it.

    Source: RAFT (2304.06767), section on the KL penalty: r̃ = r − β·log(p_g/p_G0).
    """

    def __init__(self, reward: Reward | Combinator, beta: float, draws: int = 4, name: str | None = None):
        self.parts = (reward,)
        self.beta = beta
        self.draws = draws
        mistakes = []
        if not 0 <= beta < math.inf:
            mistakes.append(f"the KL penalty's beta is {beta}, but must be a number that is not negative")
        if draws < 1:
            mistakes.append(f"the KL penalty's draws is {draws}, but at least 1 is needed")
        if name == reward.info.name:
            mistakes.append(f"{name!r} is the name of the penalised reward and of the plain one: give the former another name")
        if mistakes:
            raise ConfigError(mistakes)
        scale = f"{reward.info.name} − {beta:g} × log-ratio to the reference"
        self.info = RewardInfo(name=name or f"{reward.info.name}_kl", scale=scale, gpu=True, relative=reward.info.relative)
        self._policy: Policy | None = None

    def attach(self, policy: Policy) -> None:
        """Take on the policy whose divergence is penalised."""
        self._policy = policy

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN where the reward is, and no draw is spent on those.

        Raises:
            RewardError: no policy is attached.
        """
        values = upward(self.parts[0], scores).copy()
        scored = np.flatnonzero(~np.isnan(values))
        if not self.beta or not len(scored):
            return values
        if self._policy is None:
            raise RewardError(
                f"the reward {self.info.name!r} penalises divergence, which takes the policy itself, and there is none here: "
                f"use its part {self.parts[0].info.name!r}"
            )
        with self._policy.resident("train"):  # likelihoods need what training needs
            ratios = log_ratios(self._policy, [samples[i] for i in scored.tolist()], ("ranking",), draws=self.draws)
        values[scored] -= self.beta * ratios
        return values
