"""Policy gradients on the actions of a sample, tokens or denoising steps, held near the policy that drew it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from raft_core.errors import ModelError
from raft_core.objectives.averaging import Average, average_mistakes, divisor, sample_losses
from raft_core.objectives.clipping import clip_mistakes, clipped_surrogate, refuse
from raft_core.protocols import Policy
from raft_core.types import Advantages, Sample, Selection

#: Nats. e^20 is far outside of every trust region, and its gradient is still a number.
MAX_LOG_RATIO = 20.0


def surrogate_losses(
    policy: Policy,
    chosen: Sequence[Sample],
    advantage: Sequence[float],
    clip: float | None,
    clip_high: float | None,
    average: Average,
) -> torch.Tensor:
    """[B] PPO's clipped surrogate of each sample: the sum over its actions or, over samples, their mean.

    Args:
        chosen: B traced samples.
        advantage: [B].
        clip: how far the ratio may fall below 1; None = it is never clipped.
        clip_high: how far it may rise above 1; None = as far as ``clip``.
        average: over what a batch of the losses is averaged.

    Raises:
        ModelError: samples without the log-probs of when they were drawn.
    """
    log_probs, mask = policy.step_log_probs(chosen)  # [B, S]
    drawn = drawn_log_probs(chosen, log_probs.shape[1]).to(log_probs)
    # An infinite ratio would be clipped, but its gradient would be 0 · ∞.
    moved = torch.where(mask, log_probs - drawn, 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    low, high = (1.0, math.inf) if clip is None else (clip, clip_high)
    factor = log_probs.new_tensor(advantage)[:, None]
    losses = clipped_surrogate(moved, torch.zeros_like(moved), factor, low, high)  # [B, S]
    return sample_losses(losses, mask, average)


def surrogate_divisor(chosen: Sequence[Sample], average: Average) -> float:
    """What a batch of ``surrogate_losses`` is divided by.

    Raises:
        ModelError: samples without the log-probs of when they were drawn.
    """
    masks = [sample.tensors.get("step_mask", torch.ones_like(log_probs_when_drawn(sample))) for sample in chosen]
    return divisor([int(mask.sum()) for mask in masks], average)


def log_probs_when_drawn(sample: Sample) -> torch.Tensor:
    """[S] log-prob of each action of a sample when it was drawn, nats.

    Raises:
        ModelError: it was drawn without a trace.
    """
    row = sample.tensors.get("step_log_probs")
    if row is None:
        raise ModelError(
            "a sample does not keep the log-probs under which it was drawn: the policy's sample(trace=True) has to put "
            "step_log_probs into its tensors"
        )
    return row


def drawn_log_probs(samples: Sequence[Sample], steps: int) -> torch.Tensor:
    """[B, steps] log-prob of each action when it was drawn, nats; 0 behind the last.

    Raises:
        ModelError: a sample without them, or with more of them.
    """
    table = torch.zeros(len(samples), steps)
    for line, sample in zip(table, samples, strict=True):
        row = log_probs_when_drawn(sample)
        if len(row) > steps:
            raise ModelError(f"a sample was drawn in {len(row)} actions, but step_log_probs replays {steps} of them")
        line[: len(row)] = row
    return table


def clip_settings(clip: float | None, clip_high: float | None) -> list[str]:
    """What is wrong with an objective's two widths, in words."""
    if clip is not None:
        return clip_mistakes(clip, clip_high)
    if clip_high is None:
        return []
    return [f"objective.clip_high is {clip_high}, but clip is null: give both, or neither for no clipping at all"]


@dataclass(frozen=True)
class PolicyGradient:
    """Clipped policy gradient: more of what has a positive advantage, less of what has a negative one.

    The loss of an action is −min(s·A, clip(s, 1 − clip, 1 + clip_high)·A), s = π/π_drawn: of a token, or of a denoising step
    with its log-prob summed over channels and pixels.

    Args:
        clip: how far below (and above) 1 the ratio may go, before what moves it further is ignored; null = never clipped.
        clip_high: how far above, where it is not the same; 0.28 lets rare actions grow.
        average: over the ``actions`` of a batch, so that long samples weigh more, or over the ``samples``, of each of which the
            mean over its own actions is taken.

    Source: Reinforce and Reinforce-Rej (2504.11343), whose code averages over tokens; Schulman et al. 2017. No value baseline.
    Differs: the code also bounds the ratio of a negative advantage at 3, takes the mean of each micro-batch and not of the
    whole batch, and adds 0.001 times a divergence.
    """

    clip: float | None = 0.2
    clip_high: float | None = None
    average: Average = "actions"
    consumes: ClassVar[type[Selection]] = Advantages
    needs_trace: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse([*clip_settings(self.clip, self.clip_high), *average_mistakes(self.average)])

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Advantages, seeds: Sequence[int]) -> torch.Tensor:
        chosen = [samples[i] for i in part.index]
        return surrogate_losses(policy, chosen, part.advantage.tolist(), self.clip, self.clip_high, self.average)

    def divisor(self, samples: Sequence[Sample], part: Advantages) -> float:
        """What the losses of a batch are divided by."""
        return surrogate_divisor([samples[i] for i in part.index], self.average)
