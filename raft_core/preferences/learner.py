"""What learns: a function from (prompt, output) to a number, split where training begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from raft_core.errors import RewardError
from raft_core.preferences.preference import Item

if TYPE_CHECKING:
    import torch


class Learner(Protocol):
    """A model of rewards. Its constructor's arguments are kept with the weights, and make the same learner again.

    Attributes:
        modality: ``image`` or ``text``.
        batch_size: items per forward pass.
    """

    modality: ClassVar[str]
    batch_size: int

    def check(self) -> list[str]:
        """Mistakes that show without a weight being read."""
        ...

    def load(self, device: str = "auto") -> None:
        """Load what is frozen and make what is trained, the same for the same seed."""
        ...

    def encode(self, items: Sequence[Item]) -> list[Any]:
        """The frozen part of the work, done once per item: embeddings, token ids."""
        ...

    def __call__(self, encoded: Sequence[Any]) -> torch.Tensor:
        """[N] raw scores, differentiable with respect to ``parameters``."""
        ...

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """What is trained, in fp32, by stable names. It alone makes up the saved weights."""
        ...

    def settings(self) -> dict[str, Any]:
        """Constructor arguments, as plain data that make the same learner from any folder."""
        ...

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        ...


@runtime_checkable
class ChecksItems(Protocol):
    """A learner that cannot read every item."""

    def check_items(self, items: Sequence[Item]) -> list[str]:
        """What it cannot read, in words; asked before a weight is loaded."""
        ...


@dataclass(frozen=True)
class Scale:
    """Shift and unit of raw scores: their mean and standard deviation on samples of the reference policy.

    Source: Ziegler et al. 2019, section 2.1: mean 0 and variance 1, before and after training.
    """

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, scores: np.ndarray) -> Scale:
        """Of [N] raw scores.

        Raises:
            RewardError: they are all alike, or not finite.
        """
        mean, std = float(scores.mean()), float(scores.std())
        if not np.isfinite([mean, std]).all():
            raise RewardError("the reward gives scores that are not finite: lower the learning rate (--fit.optimizer.lr)")
        if std < 1e-8 * max(1.0, abs(mean)):
            raise RewardError(
                f"the reward gives the reference samples one and the same score ({mean:g}), so it cannot be normalised: "
                "give more, and more different, samples as --reference"
            )
        return cls(mean, std)

    def __call__(self, raw: Any) -> Any:
        return (raw - self.mean) / self.std


def raw_scores(learner: Learner, encoded: Sequence[Any]) -> np.ndarray:
    """[N] float64 raw scores, without gradients, in parts of the learner's batch size."""
    import torch

    parts = [np.empty(0)]
    for start in range(0, len(encoded), learner.batch_size):
        with torch.no_grad():
            parts.append(learner(encoded[start : start + learner.batch_size]).cpu().double().numpy())
    return np.concatenate(parts)
