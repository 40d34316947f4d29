"""Proximal policy optimisation in the same loop: every scored sample, a critic's advantages, several epochs on one round.

The rewards of a round's actions, the reference's log-probs and the critic's estimates belong to the policy as it was when it
drew the samples. They are taken once, before the round's first step (``Ppo.begin``); the epochs are the trainer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from raft_core.errors import ModelError
from raft_core.objectives.averaging import Average, average_mistakes, divisor
from raft_core.objectives.clipping import clip_mistakes, clipped_surrogate, refuse
from raft_core.objectives.gae import TINY, action_rewards, clipped_value_loss, gae, whitened
from raft_core.objectives.kl_control import KlPenalty
from raft_core.objectives.replay import MAX_LOG_RATIO, ReplayCheck, tolerance_mistakes
from raft_core.protocols import Policy, Valued
from raft_core.sampling import chunks
from raft_core.types import Sample, Scored, Selection

BETA = "kl_coefficient"


@dataclass(frozen=True)
class Ppo:
    """PPO with a critic: clipped surrogate + value_weight × value loss, of each action.

    What the selector gives a sample is its reward, paid at the last action; each action pays β per nat of divergence from the
    reference. Advantages come from the critic by GAE. ``trainer.epochs`` are the epochs of PPO, ``trainer.batch_size`` its
    mini-batch. The policy needs a critic (``critic: {}`` of ``CausalLM``).

    Args:
        clip: how far an action's probability ratio counts, up and down.
        clip_high: how far up, where that is to be further; null = ``clip``.
        value_weight: of the value loss.
        value_clip: how far a value estimate may move in a round, in reward units; null = as far as it likes.
        gamma: discount per action.
        lam: λ of GAE.
        whiten: bring the round's advantages to mean 0 and deviation 1, over all actions.
        kl: the price of divergence.
        average: over the ``samples``, of each of which the mean over its own actions is taken, or over the ``actions`` of a
            batch, so that long samples weigh more.
        replay_tolerance: how far replayed log-probs may lie from those of the sampling before a round's first update, as a mean
            over actions: nats per token, or times √N of a denoising step of N elements. Beyond it the run stops.

    Source: ReFT (2401.08967), section 3.2, with its values: clip 0.2, weight 5, γ 1, λ 0.95; its code averages over samples.
    Schulman et al. 2017.
    """

    clip: float = 0.2
    clip_high: float | None = None
    value_weight: float = 5.0
    value_clip: float | None = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True
    kl: KlPenalty = field(default_factory=KlPenalty)
    average: Average = "samples"
    replay_tolerance: float = 0.05
    consumes: ClassVar[type[Selection]] = Scored
    needs_trace: ClassVar[bool] = True

    def __post_init__(self) -> None:
        mistakes = clip_mistakes(self.clip, self.clip_high)
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                mistakes.append(f"objective.{name} is {getattr(self, name)}, but must be in [0, 1]")
        if not self.value_weight > 0:
            mistakes.append(f"objective.value_weight is {self.value_weight}, but must be positive: the critic has to learn")
        if self.value_clip is not None and not self.value_clip > 0:
            mistakes.append(f"objective.value_clip is {self.value_clip}, but must be positive; null switches it off")
        refuse([*mistakes, *average_mistakes(self.average), *tolerance_mistakes(self.replay_tolerance)])

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words; nothing has to be loaded."""
        if isinstance(policy, Valued) and policy.estimates_values:
            return []
        return [
            f"the objective Ppo takes its advantages from a critic, and the policy {type(policy).__name__} has none: give it "
            "one (critic: {} of CausalLM), or choose an objective without"
        ]

    def begin(self, policy: Policy, samples: Sequence[Sample], selection: Scored, carried: Mapping[str, float]) -> PpoRound:
        """The loss of one round, from the policy as it is before the round's first step.

        Args:
            carried: β, as the round before left it; empty in the first.

        Raises:
            ModelError: samples without a trace.
        """
        beta = carried.get(BETA, self.kl.beta)
        with torch.no_grad():
            taken = take([samples[i] for i in selection.index], policy, reference=self.kl.beta > 0)
            score = torch.as_tensor(selection.score, dtype=taken.value.dtype)
            rewards = action_rewards(taken.kl, score, taken.lengths, beta)
            advantage = gae(rewards, taken.value, self.gamma, self.lam)
            returned = advantage + taken.value
            weight = whitened(advantage, taken.mask) if self.whiten else advantage
        kl = float(taken.kl.sum(dim=1).mean())
        figures = {"return": mean(returned, taken.mask), "value_explained": explained(returned, taken.value, taken.mask)}
        figures |= {"kl": kl, BETA: beta} if self.kl.beta else {}
        rows = zip(taken.old_log_prob, weight, taken.value, returned, taken.lengths.tolist(), strict=True)
        targets = [Targets(old[:n], a[:n], v[:n], r[:n]) for old, a, v, r, n in rows]
        return PpoRound(
            self,
            dict(zip(selection.index.tolist(), targets, strict=True)),
            {BETA: self.kl.adapted(beta, kl, len(selection))},
            figures,
        )

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Scored, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of items that make up a round of their own; a trainer calls what ``begin`` returns."""
        return self.begin(policy, samples, part, {})(policy, samples, part, seeds)


@dataclass(frozen=True, eq=False)
class Taken:
    """What the policy of the start says of the chosen samples, [N, S] each, 0 behind the last action.

    Attributes:
        old_log_prob: of the actions when they were drawn, nats.
        kl: old_log_prob − the reference's; 0 when it was not asked.
        value: estimate before each action.
        mask: bool.
        lengths: [N].
    """

    old_log_prob: torch.Tensor
    kl: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor
    lengths: torch.Tensor


def take(chosen: Sequence[Sample], policy: Policy, *, reference: bool) -> Taken:
    """Ask policy and reference about traced samples, on the CPU.

    Raises:
        ModelError: a sample without a trace.
    """
    critic = cast(Valued, policy)
    old = [traced(sample) for sample in chosen]
    values: list[torch.Tensor] = []
    kl: list[torch.Tensor] = []
    for part in chunks(range(len(chosen)), max(policy.batch_size, 1)):
        asked = [chosen[i] for i in part]
        _, value, mask = critic.step_log_probs_and_values(asked)
        values += rows_of(value, mask)
        if reference:
            found = rows_of(*policy.step_log_probs(asked, reference=True))
            kl += [old[i] - row for i, row in zip(part, found, strict=True)]
        else:
            kl += [torch.zeros_like(old[i]) for i in part]
    lengths = torch.tensor([len(row) for row in old])
    padded = [pad_sequence(rows, batch_first=True) for rows in (old, kl, values)]
    return Taken(*padded, mask=torch.arange(padded[0].shape[1]) < lengths[:, None], lengths=lengths)


def traced(sample: Sample) -> torch.Tensor:
    """[T] log-probs of a sample's actions when it was drawn.

    Raises:
        ModelError: it was drawn without a trace.
    """
    if "step_log_probs" not in sample.tensors:
        raise ModelError("a sample was drawn without a trace, so its old log-probs are unknown: sample with trace=True")
    return sample.tensors["step_log_probs"][sample.tensors["step_mask"]].float()


def rows_of(values: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """[T] of each row, on the CPU, from [B, S] and its mask."""
    return [row[kept].float().cpu() for row, kept in zip(values, mask, strict=True)]


@dataclass(frozen=True, eq=False)
class Targets:
    """What the actions of a sample are trained towards, [T] each: old log-probs, advantages, old values, returns."""

    old_log_prob: torch.Tensor
    advantage: torch.Tensor
    old_value: torch.Tensor
    returned: torch.Tensor


@dataclass(frozen=True, eq=False)
class PpoRound:
    """PPO's loss on the samples of one round.

    Attributes:
        settings: of the objective.
        targets: flat index of a sample → what its actions are trained towards.
        carried: β for the next round.
        measured: figures of the round's start.
    """

    settings: Ppo
    targets: Mapping[int, Targets]
    carried: Mapping[str, float]
    measured: Mapping[str, float]
    _seen: list[tuple[float, ...]] = field(default_factory=list)
    _check: ReplayCheck = field(default_factory=ReplayCheck)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Scored, seeds: Sequence[int]) -> torch.Tensor:
        """[B] clipped surrogate + value_weight × value loss, each the mean over the sample's actions, or their sum."""
        s = self.settings
        chosen = [samples[i] for i in part.index]
        log_probs, values, mask = cast(Valued, policy).step_log_probs_and_values(chosen)
        rows = [self.targets[i] for i in part.index.tolist()]
        lengths = [len(row.advantage) for row in rows]
        log_prob, value = log_probs[mask].float(), values[mask].float()  # [ΣT], sample after sample
        old_log_prob, advantage, old_value, returned = (
            torch.cat([getattr(row, name) for row in rows]).to(log_prob.device)
            for name in ("old_log_prob", "advantage", "old_value", "returned")
        )
        every = torch.ones_like(log_prob, dtype=torch.bool)
        self._check("all", log_prob - old_log_prob, every, chosen, policy, s.replay_tolerance)
        # An infinite ratio would be clipped, but its gradient would be 0 · ∞.
        moved = (log_prob - old_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        surrogate = clipped_surrogate(moved, torch.zeros_like(moved), advantage, s.clip, s.clip_high)
        error = clipped_value_loss(value, old_value, returned, s.value_clip)
        policy_loss, value_loss = (self._of_samples(each, lengths) for each in (surrogate, error))
        ratio = moved.detach().exp()
        high = s.clip if s.clip_high is None else s.clip_high
        outside = ((ratio < 1 - s.clip) | (ratio > 1 + high)).float().mean()
        means = ((each.detach().sum() / self.divisor(samples, part)).item() for each in (policy_loss, value_loss))
        self._seen.append((*means, float(outside)))
        return policy_loss + s.value_weight * value_loss

    def _of_samples(self, losses: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """[B] from those of actions [ΣT], sample after sample."""
        rows = losses.split(list(lengths))
        return torch.stack([row.sum() if self.settings.average == "actions" else row.mean() for row in rows])

    def divisor(self, samples: Sequence[Sample], part: Scored) -> float:
        """What the losses of a batch are divided by."""
        return divisor([len(self.targets[i].advantage) for i in part.index.tolist()], self.settings.average)

    def figures(self) -> dict[str, float]:
        """Of the round: means over the calls so far, and of its start."""
        names = ("policy_loss", "value_loss", "clip_fraction")
        means: dict[str, float] = {}
        if self._seen:
            means = dict(zip(names, np.mean(self._seen, axis=0).tolist(), strict=True)) | {"replay_error": self._check.error}
        return {f"ppo/{name}": value for name, value in {**self.measured, **means}.items()}


def mean(values: torch.Tensor, mask: torch.Tensor) -> float:
    return float(values[mask].mean())


def explained(returned: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> float:
    """1 − var(R − V)/var(R) over the actions: 1 = the critic knows all, ≤ 0 = it knows nothing."""
    target: Any = returned[mask]
    return float(1 - (target - value[mask]).var(correction=0) / (target.var(correction=0) + TINY))
