"""Completions that were cut off count among their prompt's scores, but nothing is learned from their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raft_core import capabilities
from raft_core.protocols import Objective, Policy, RoundLoss, Staged
from raft_core.types import Prompt, Sample, Selection
from raft_text.rewards.texts import is_truncated


@dataclass(frozen=True)
class MaskTruncated:
    """Another objective whose loss is 0 on completions that were cut off at ``sampling.max_new_tokens``.

    They are scored and selected like any, so that baselines and advantages know of them; what would have come next is not
    known, so neither more nor less of them is learned. A pair or a group of which one was cut off is left out whole. Items that
    are masked still count in a batch's mean. To have them not scored at all, or penalised, see the reward ``Truncated``.

    Args:
        objective: what is minimised on the others.

    Source: DAPO (2503.14476), overlong filtering.
    """

    objective: Objective

    @property
    def consumes(self) -> type[Selection]:
        return self.objective.consumes

    @property
    def needs_trace(self) -> bool:
        return self.objective.needs_trace

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        return capabilities.check_policy(self.objective, policy)

    def attach(self, policy: Policy) -> None:
        """Hand the policy to the objective, if it needs it."""
        capabilities.attach([self.objective], policy)

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """What the prompts lack that the objective needs."""
        return capabilities.check_prompts(self.objective, train, held_out)

    def begin(
        self, policy: Policy, samples: Sequence[Sample], selection: Selection, carried: Mapping[str, float]
    ) -> MaskedRound:
        """The loss of one round; the objective begins with all that was selected, what was cut off included."""
        inner = self.objective
        return MaskedRound(inner.begin(policy, samples, selection, carried) if isinstance(inner, Staged) else inner)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]) -> torch.Tensor:
        """[B]"""
        return masked_losses(self.objective, policy, samples, part, seeds)


@dataclass(frozen=True)
class MaskedRound:
    """One round's loss, masked.

    Attributes:
        loss: of the objective.
    """

    loss: Objective | RoundLoss

    @property
    def carried(self) -> Mapping[str, float]:
        return getattr(self.loss, "carried", {})

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]) -> torch.Tensor:
        """[B]"""
        return masked_losses(self.loss, policy, samples, part, seeds)

    def figures(self) -> dict[str, float]:
        """The objective's own."""
        found: Any = getattr(self.loss, "figures", dict)
        return found()


def masked_losses(
    loss: Objective | RoundLoss, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]
) -> torch.Tensor:
    """[B] losses of the items, 0 where a sample of the item was cut off; those cost no pass."""
    kept = [i for i in range(len(part)) if not any(is_truncated(samples[j]) for j in part.take([i]).kept.tolist())]
    values = torch.zeros(len(part), requires_grad=not kept)  # with nothing to learn, a gradient of nothing
    if not kept:
        return values
    found = loss(policy, samples, part.take(kept), [seeds[i] for i in kept])
    return found.new_zeros(len(part)).index_put((torch.as_tensor(np.array(kept), device=found.device),), found)
