"""When to stop: rules that look at the history of a run and answer with a reason, or with None.

A history is one mapping of metrics per finished round, oldest first. Round 1 is sampled before the first update, so its metrics
are those of the model as it came; every fall is measured from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from raft_core.errors import ConfigError, nearest
from raft_core.metrics.history import require_metric, series
from raft_core.protocols import History


def _require(good: bool, mistake: str) -> None:
    if not good:
        raise ConfigError(mistake)


@dataclass(frozen=True)
class Plateau:
    """The reward oscillates at one level: over the last ``rounds`` rounds its mean moved by no more than the tolerance.

    Moved = largest − smallest of ``reward/mean`` in these rounds. The tolerance is ``tolerance`` × the spread of the rewards
    within a prompt in round 1 (``reward/std_within``), so it means the same for every reward; ``absolute`` gives it in reward
    units.

    Args:
        rounds: consecutive rounds at one level, ≥ 2.
        tolerance: in standard deviations within a prompt, ≥ 0. The mean of 160 samples is itself unsure by 0.08 of these, so
            that at one level three rounds differ by 0.14 on average.
        absolute: in reward units instead.
        metric: what has to level out.

    Source: RAFT (2304.06767): stop when the reward oscillates at one level for three consecutive stages. Differs: "one level"
    is given a number.
    """

    rounds: int = 3
    tolerance: float = 0.2
    absolute: float | None = None
    metric: str = "reward/mean"

    def __post_init__(self) -> None:
        _require(self.rounds >= 2, f"Plateau.rounds is {self.rounds}, but a level needs at least 2 rounds")
        _require(self.tolerance >= 0, f"Plateau.tolerance is {self.tolerance}, but must be ≥ 0")
        _require(self.absolute is None or self.absolute >= 0, f"Plateau.absolute is {self.absolute}, but must be ≥ 0")

    def settled(self, directions: Mapping[str, bool]) -> Plateau:
        """The rule itself, if the run measures its metric.

        Raises:
            ConfigError: it does not.
        """
        require_metric("metric", self.metric, directions)
        return self

    def __call__(self, history: History) -> str | None:
        last = series(history, self.metric)[-self.rounds :]
        if len(last) < self.rounds or not all(map(math.isfinite, last)):
            return None
        allowed = self.tolerance * series(history, "reward/std_within")[0] if self.absolute is None else self.absolute
        moved = max(last) - min(last)
        if not moved <= allowed:  # also when the spread of round 1 is unknown (NaN)
            return None
        moved_by = f"{moved:.3g} in the last {self.rounds} rounds (tolerance {allowed:.3g})"
        return f"{self.metric} has levelled out: it moved by {moved_by}"


@dataclass(frozen=True)
class JudgeDrop:
    """A judge got worse than in round 1 by more than ``by``: the reward is being gamed.

    Args:
        judge: its name, as in the scorer.
        by: how much worse is too much, in the judge's own units, ≥ 0.
        rounds: in so many consecutive rounds, ≥ 1; more than one forgives a single unlucky draw of prompts.
        higher_is_better: by default the judge's own direction; where nobody tells it, as outside of a run, higher.
    """

    judge: str
    by: float
    rounds: int = 1
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        _require(self.by >= 0, f"JudgeDrop.by is {self.by}, but must be ≥ 0")
        _require(self.rounds >= 1, f"JudgeDrop.rounds is {self.rounds}, but must be ≥ 1")

    def settled(self, directions: Mapping[str, bool]) -> JudgeDrop:
        """The rule with the judge's own direction where none was given.

        Raises:
            ConfigError: the run has no such judge.
        """
        judges = {metric.removeprefix("judge/"): up for metric, up in directions.items() if metric.startswith("judge/")}
        if self.judge not in judges:
            part = f"score/{self.judge}" in directions
            why = "which is a part of the reward and no judge" if part else "but there is no judge of that name"
            raise ConfigError(f"judge is {self.judge!r}, {why}{nearest(self.judge, judges)}")
        return replace(self, higher_is_better=judges[self.judge]) if self.higher_is_better is None else self

    def __call__(self, history: History) -> str | None:
        values = series(history, f"judge/{self.judge}")
        sign = -1 if self.higher_is_better is False else 1
        if not _all_last(values, self.rounds, lambda value: sign * (values[0] - value) > self.by):
            return None
        verb = "fell" if sign > 0 else "rose"
        return f"the judge {self.judge} {verb} from {values[0]:.3g} in round 1 to {values[-1]:.3g} (allowed: {self.by:.3g})"


@dataclass(frozen=True)
class DiversityDrop:
    """Samples of a prompt have become alike: diversity lost more than ``fraction`` of its value in round 1.

    Args:
        fraction: in (0, 1); 0.5 stops when less than half is left.
        rounds: in so many consecutive rounds, ≥ 1.
    """

    fraction: float = 0.5
    rounds: int = 1

    def __post_init__(self) -> None:
        _require(0 < self.fraction < 1, f"DiversityDrop.fraction is {self.fraction}, but must be in (0, 1)")
        _require(self.rounds >= 1, f"DiversityDrop.rounds is {self.rounds}, but must be ≥ 1")

    def __call__(self, history: History) -> str | None:
        values = series(history, "diversity")
        if not _all_last(values, self.rounds, lambda value: value < (1 - self.fraction) * values[0]):
            return None
        fall = f"{1 - values[-1] / values[0]:.0%} since round 1, from {values[0]:.3g} to {values[-1]:.3g}"
        return f"diversity fell by {fall} (allowed: {self.fraction:.0%})"


@dataclass(frozen=True)
class KlAbove:
    """The policy has moved too far from the model as it came.

    Args:
        limit: largest ``kl`` allowed, in the policy's units (nats for text, the denoising surrogate for images), > 0.
    """

    limit: float

    def __post_init__(self) -> None:
        _require(self.limit > 0, f"KlAbove.limit is {self.limit}, but must be > 0")

    def __call__(self, history: History) -> str | None:
        values = series(history, "kl")
        return f"kl is {values[-1]:.3g}, above {self.limit:.3g}" if values and values[-1] > self.limit else None


def _all_last(values: Sequence[float], n: int, bad: Callable[[float], bool]) -> bool:
    """Whether the last n values, none of them the first, are all ``bad``; NaN never is."""
    return len(values) > n and all(bad(value) for value in values[-n:])
