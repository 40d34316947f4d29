"""Over what a loss of actions is averaged: all actions of a batch, those of each sample first, or a number that is given.

Over all actions, a token of a long answer weighs as much as one of a short answer, so the long answer weighs more. Over
samples, every answer weighs the same, so a token of a long one less: a long wrong answer is then punished less per token. A
constant weighs every token alike whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Average = Literal["actions", "samples"]
AverageOrConstant = Literal["actions", "samples", "constant"]


def sample_losses(
    losses: torch.Tensor, mask: torch.Tensor, average: AverageOrConstant, lengths: Sequence[int] | None = None
) -> torch.Tensor:
    """[B] the sum of a sample's losses or, over samples, their mean; a batch of them is divided by ``divisor``.

    Args:
        losses: [B, S] of the actions.
        mask: [B, S] bool, which of them count.
        lengths: [B] actions of each sample where these are a part of them alone; by default those that the mask counts.
    """
    total = (losses * mask).sum(dim=1)
    if average != "samples":
        return total
    counts = mask.sum(dim=1) if lengths is None else total.new_tensor(lengths)
    return total / counts.clamp(min=1)


def divisor(lengths: Sequence[int], average: AverageOrConstant, constant: int | None = None) -> float:
    """What the sum of a batch's ``sample_losses`` is divided by, at least 1: its actions, its samples, or a constant for each.

    Two samples of 3 actions and 1: 4 or 2, or 16 with a constant of 8. With losses of 1, 1, 1 and 5 the batch's is 8/4 = 2,
    (1 + 5)/2 = 3 or 8/16 = ½.

    Args:
        lengths: actions of each sample of the batch.
        constant: of "constant".
    """
    if average == "constant":
        return float(max(1, len(lengths)) * (constant or 1))
    return float(max(1, sum(lengths) if average == "actions" else len(lengths)))


def average_mistakes(average: str) -> list[str]:
    """What is wrong with an objective's ``average``, in words."""
    if average in ("actions", "samples"):
        return []
    return [f"objective.average is {average!r}: use 'actions' (tokens, denoising steps) or 'samples'"]


def constant_mistakes(average: str, length: int | None) -> list[str]:
    """What is wrong with an objective's ``average`` that may be a constant, and with its ``length``, in words."""
    if average != "constant":
        found = [] if average in ("actions", "samples") else [f"{average_mistakes(average)[0]}, or 'constant' with a length"]
        return found if length is None else [*found, f"objective.length is {length}, but only average 'constant' divides by it"]
    if length is None or length < 1:
        return [f"objective.average is 'constant', but objective.length is {length}: give the actions of the longest sample"]
    return []
