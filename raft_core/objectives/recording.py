"""A round's loss that keeps figures of its items: what an objective finds on the way goes into the metrics file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from raft_core import capabilities
from raft_core.protocols import Policy
from raft_core.types import Sample

if TYPE_CHECKING:
    import torch


class Measures(Protocol):
    """An objective whose losses come with figures."""

    def measured(
        self, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """([B] loss of each item, name → [B] figure of each item, no gradient); the same names at every call.

        A figure of some items only would be of none in a process that has none of them.
        """
        ...


@dataclass(frozen=True, eq=False)
class Recorded:
    """The loss of one round by an objective, and the means of its figures over the round's items so far.

    Attributes:
        objective: computes both.
        prefix: of the figures' names.
        carried: nothing is left for the next round.
    """

    objective: Measures
    prefix: str
    carried: Mapping[str, float] = field(default_factory=dict)
    _totals: dict[str, list[float]] = field(default_factory=dict)  # name → [sum, items]

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]) -> torch.Tensor:
        """[B] as of an ``Objective``."""
        losses, figures = self.objective.measured(policy, samples, part, seeds)
        for name, values in figures.items():
            total = self._totals.setdefault(name, [0.0, 0])
            total[0] += float(values.detach().sum())
            total[1] += len(values)
        return losses

    def divisor(self, samples: Sequence[Sample], part: Any) -> float:
        """What the losses of a batch are divided by: as the objective has it."""
        return capabilities.divisor(self.objective, samples, part)

    def figures(self) -> dict[str, float]:
        """By their names in the metrics file."""
        return {f"{self.prefix}/{name}": total / items for name, (total, items) in self._totals.items() if items}
