"""What is measured on a page, and why something was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

from raft_core.evaluation.evaluate import column_roles
from raft_core.rewards.scoring import Scorer
from raft_core.types import Scores


@dataclass(frozen=True)
class Measure:
    """A column of scores: the reward that selected, a part of it, or a judge that was never trained on."""

    name: str
    role: str
    scale: str
    higher_is_better: bool


def measure_of(scorer: Scorer, name: str, shown: str) -> Measure:
    scale, higher_is_better = scorer.infos[name]
    return Measure(shown, column_roles(scorer)[name], scale, higher_is_better)


def unscored(sides: Sequence[Scores]) -> list[str]:
    """One line for each reward that could not score some pictures, with its first reason."""
    counts: dict[str, tuple[int, str]] = {}
    for side in sides:
        for name, failure in side.failures.items():
            count, reason = counts.get(name, (0, failure.first_error))
            counts[name] = (count + failure.count, reason)
    return [f"{name} could not score {count} pictures: {reason}" for name, (count, reason) in counts.items()]
