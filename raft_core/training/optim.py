"""Optimiser and learning-rate schedule, as plain settings."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from raft_core.errors import MachineLack

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Optimizer:
    """How weights are updated. The moments carry over from round to round.

    Args:
        name: ``adamw`` (torch), or ``adamw8bit`` (bitsandbytes, CUDA only) which keeps its moments in a quarter of the memory.
        lr: peak learning rate, > 0.
        betas: decay of the first and the second moment, each in [0, 1).
        eps: added to the root of the second moment, > 0.
        weight_decay: decoupled decay per unit of learning rate, ≥ 0.

    Source: Loshchilov and Hutter 2019 (AdamW); Dettmers et al. 2022 (8-bit moments).
    """

    name: Literal["adamw", "adamw8bit"] = "adamw"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def mistakes(self) -> list[str]:
        """Values that make no sense, in words."""
        found = []
        if self.name not in ("adamw", "adamw8bit"):
            found.append(f"optimizer.name is {self.name!r}: use 'adamw' or 'adamw8bit'")
        if not 0 < self.lr < math.inf:
            found.append(f"optimizer.lr is {self.lr}, but a learning rate must be positive")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            found.append(f"optimizer.betas is {self.betas}, but must be two numbers in [0, 1)")
        if not self.eps > 0:
            found.append(f"optimizer.eps is {self.eps}, but must be positive")
        if not self.weight_decay >= 0:
            found.append(f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")
        return found

    def check(self) -> list[str]:
        """What this machine lacks for it, in words."""
        if self.name != "adamw8bit":
            return []
        import torch

        found = []
        if not torch.cuda.is_available():
            found.append(
                MachineLack("optimizer.name is 'adamw8bit', which needs a CUDA device, and torch sees none: use 'adamw'")
            )
        if importlib.util.find_spec("bitsandbytes") is None:
            found.append(
                MachineLack(
                    "optimizer.name is 'adamw8bit', which needs the package 'bitsandbytes', which is not installed: "
                    "pip install 'raft-align[bitsandbytes]', or use 'adamw'"
                )
            )
        return found

    def build(self, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        import torch

        if self.name == "adamw8bit":
            import bitsandbytes  # pyright: ignore[reportMissingImports] - an extra

            kind = bitsandbytes.optim.AdamW8bit
        else:
            kind = torch.optim.AdamW
        return kind(list(parameters), lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes over the run.

    The decay follows the progress of the *whole run*: round r of R, and within it the step among the steps of that round. This
    needs no count of all steps, which is unknown ahead where the number of selected samples varies.

    Args:
        name: ``constant``; ``linear`` falls to 0 at the end of the last round; ``cosine`` too, along half a cosine.
        warmup_steps: optimiser steps from the start of the run over which the rate rises linearly to its peak, ≥ 0.
    """

    name: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0

    def mistakes(self) -> list[str]:
        """Values that make no sense, in words."""
        found = []
        if self.name not in ("constant", "linear", "cosine"):
            found.append(f"schedule.name is {self.name!r}: use 'constant', 'linear' or 'cosine'")
        if self.warmup_steps < 0:
            found.append(f"schedule.warmup_steps is {self.warmup_steps}, but must not be negative")
        return found

    def factor(self, step: int, progress: float) -> float:
        """Part of the peak learning rate, in [0, 1].

        With 4 warm-up steps the first step is taken at 1/4 of the peak and the fourth at the peak. A linear decay at progress
        0.25 gives 3/4, a cosine (1 + cos π/4) / 2 = 0.8536.

        Args:
            step: optimiser steps taken before this one, over all rounds.
            progress: part of the run that is done before this step, in [0, 1].
        """
        progress = min(max(progress, 0.0), 1.0)
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        decay = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[self.name]
        return warm * decay
