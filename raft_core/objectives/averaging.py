"""Over what a loss of actions is averaged: over all of a batch, or first over those of each sample.

Over all actions, a token of a long answer weighs as much as one of a short answer, so the long answer weighs more. Over
samples, every answer weighs the same, so a token of a long one less: a long wrong answer is then punished less per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Average = Literal["actions", "samples"]


def sample_losses(losses: torch.Tensor, mask: torch.Tensor, average: Average) -> torch.Tensor:
    """[B] the sum of a sample's losses or, over samples, their mean; a batch of them is divided by ``divisor``.

    Args:
        losses: [B, S] of the actions.
        mask: [B, S] bool, which of them count.
    """
    total = (losses * mask).sum(dim=1)
    return total if average == "actions" else total / mask.sum(dim=1).clamp(min=1)


def divisor(lengths: Sequence[int], average: Average) -> float:
    """What the sum of a batch's ``sample_losses`` is divided by: its actions or its samples, at least 1.

    Two samples of 3 actions and 1: 4 or 2. With losses of 1, 1, 1 and 5 the batch's is 8/4 = 2 or (1 + 5)/2 = 3.

    Args:
        lengths: actions of each sample of the batch.
    """
    return float(max(1, sum(lengths) if average == "actions" else len(lengths)))


def average_mistakes(average: str) -> list[str]:
    """What is wrong with an objective's ``average``, in words."""
    if average in ("actions", "samples"):
        return []
    return [f"objective.average is {average!r}: use 'actions' (tokens, denoising steps) or 'samples'"]
