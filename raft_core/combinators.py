"""Rewards made of rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.divergence import log_ratios
from raft_core.errors import ConfigError, RewardError
from raft_core.protocols import Combinator, Policy, Reward, RewardInfo
from raft_core.types import Sample


def upward(reward: Reward | Combinator, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N] scores of a part, turned so that higher is better."""
    values = scores[reward.info.name]
    return values if reward.info.higher_is_better else -values


class Weighted:
    """Σ weight × score over several rewards, higher is better.

    Scores enter in their own units, turned first where lower is better: an aesthetic of 6 with weight 1 and a CLIP score of 27
    with weight 0.1 give 8.7. A sample that any part could not score is not scored.

    Args:
        rewards: the parts; each is also recorded under its own name.
        weights: one per part, not 0; 1 each if left out. A negative weight makes a part a penalty.
        name: column of the sum.
    """

    def __init__(
        self, rewards: Sequence[Reward | Combinator], weights: Sequence[float] | None = None, name: str = "weighted_sum"
    ):
        self.parts = tuple(rewards)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.parts)
        if mistakes := self._mistakes(name):
            raise ConfigError(mistakes)
        terms = [f"{weight:g} × {part.info.name}" for weight, part in zip(self.weights, self.parts, strict=True)]
        self.info = RewardInfo(name=name, scale=" + ".join(terms), differentiable=False)

    def _mistakes(self, name: str) -> list[str]:
        found = []
        names = [part.info.name for part in self.parts]
        if not self.parts:
            found.append("a weighted sum without rewards: list at least one under rewards")
        if len(self.weights) != len(self.parts):
            found.append(f"{name}.weights has {len(self.weights)} numbers for {len(self.parts)} rewards: give one for each")
        if useless := [weight for weight in self.weights if not math.isfinite(weight) or weight == 0]:
            found.append(f"{name}.weights holds {useless[0]}: leave that reward out, or measure it as a judge")
        found += [
            f"{name} has two rewards named {twice!r}: give one another name"
            for twice in sorted(set(names))
            if names.count(twice) > 1
        ]
        if name in names:
            found.append(f"{name} is the name of the sum and of one of its rewards: give the sum another name")
        return found

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN wherever a part is NaN."""
        turned = np.stack([upward(part, scores) for part in self.parts])  # [parts, N]
        return np.asarray(self.weights) @ turned


class KLPenalised:
    """r − β·(log π − log π_ref): the reward less what the sample cost in divergence from the start.

    It changes which samples are chosen and nothing else: the loss stays the likelihood of what was chosen. The log-ratio comes
    from ``Policy.nll`` with draws that policy and reference share (``divergence.log_ratios``); for diffusion it is the
    denoising surrogate and noisy, hence several draws.

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
        self.info = RewardInfo(name=name or f"{reward.info.name}_kl", scale=scale, gpu=True)
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
