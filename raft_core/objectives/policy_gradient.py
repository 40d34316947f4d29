"""Policy gradients on the actions of a sample, tokens or denoising steps, held near the policy that drew it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from raft_core.errors import ModelError
from raft_core.objectives.clipping import clip_mistakes, clipped_surrogate, refuse
from raft_core.protocols import Policy
from raft_core.types import Advantages, Sample, Selection

#: Nats. e^20 is far outside of every trust region, and its gradient is still a number.
MAX_LOG_RATIO = 20.0


def surrogate_losses(
    policy: Policy, chosen: Sequence[Sample], advantage: Sequence[float], clip: float | None, clip_high: float | None
) -> torch.Tensor:
    """[B] mean over a sample's own actions of PPO's clipped surrogate: a long sample counts as much as a short one.

    Args:
        chosen: B traced samples.
        advantage: [B].
        clip: how far the ratio may fall below 1; None = it is never clipped.
        clip_high: how far it may rise above 1; None = as far as ``clip``.

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
    return (losses * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def drawn_log_probs(samples: Sequence[Sample], steps: int) -> torch.Tensor:
    """[B, steps] log-prob of each action when it was drawn, nats; 0 behind the last.

    Raises:
        ModelError: a sample without them, or with more of them.
    """
    table = torch.zeros(len(samples), steps)
    for line, sample in zip(table, samples, strict=True):
        row = sample.tensors.get("step_log_probs")
        if row is None:
            raise ModelError(
                "a sample does not keep the log-probs under which it was drawn: the policy's sample(trace=True) has to put "
                "step_log_probs into its tensors"
            )
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

    The loss of a sample is −mean over its actions of min(s·A, clip(s, 1 − clip, 1 + clip_high)·A), s = π/π_drawn of one action:
    a token, or a denoising step with its log-prob summed over channels and pixels.

    Args:
        clip: how far below (and above) 1 the ratio may go, before what moves it further is ignored; null = never clipped.
        clip_high: how far above, where it is not the same; 0.28 lets rare actions grow.

    Source: Reinforce and Reinforce-Rej (2504.11343); Schulman et al. 2017. No value baseline.
    """

    clip: float | None = 0.2
    clip_high: float | None = None
    consumes: ClassVar[type[Selection]] = Advantages
    needs_trace: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(clip_settings(self.clip, self.clip_high))

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Advantages, seeds: Sequence[int]) -> torch.Tensor:
        chosen = [samples[i] for i in part.index]
        return surrogate_losses(policy, chosen, part.advantage.tolist(), self.clip, self.clip_high)
