"""When to stop: rules that look at the history of a run and answer with a reason, or with None.

A history is one mapping of metrics per finished round, oldest first. Round 1 is sampled before the first update, so its metrics
are those of the model as it came; every fall is measured from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raft_core.errors import ConfigError, nearest
from raft_core.metrics.history import ERROR_OF, require_metric, series
from raft_core.metrics.trend import Trend, trend
from raft_core.protocols import History


def _require(good: bool, mistake: str) -> None:
    if not good:
        raise ConfigError(mistake)


@dataclass(frozen=True)
class Plateau:
    """The reward keeps its level: it shows no upward trend, and one of more than the tolerance can be excluded.

    The trend is that of the straight line through the last rounds, ``rounds`` of them or as many more as it takes to tell a
    trend from chance. It is unsure by how much the samples of a round differ, between prompts as well as within them
    (``se/…`` of the metric): a round of other prompts has another mean without any training. So a rise that goes on is not
    stopped because three rounds of it look alike, and noisy rounds need more of them: a run of 10 prompts × 16 samples that
    has levelled out is stopped after 7 to 15 rounds, by how much prompts differ; tests/core/monitoring/test_monitor.py has the
    error rates.

    Args:
        rounds: at least so many, ≥ 2. The tolerance is a rise from the first to the last of them.
        tolerance: in standard deviations of the reward within a prompt in round 1 (``reward/std_within``), so that it means the
            same for every reward, ≥ 0. A larger one stops earlier.
        absolute: in the metric's own units instead.
        metric: what has to level out.
        confidence: with which a rise and a fall beyond the tolerance are excluded, each, in (0.5, 1).
        higher_is_better: by default the metric's own direction; where nobody tells it, as outside of a run, higher.

    Source: RAFT (2304.06767): stop when the reward oscillates at one level for three consecutive stages. Differs: "one level"
    is an equivalence test (Schuirmann 1987), and the stages are as many as it needs.
    """

    rounds: int = 3
    tolerance: float = 0.1
    absolute: float | None = None
    metric: str = "reward/mean"
    confidence: float = 0.99
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        _require(self.rounds >= 2, f"Plateau.rounds is {self.rounds}, but a level needs at least 2 rounds")
        _require(self.tolerance >= 0, f"Plateau.tolerance is {self.tolerance}, but must be ≥ 0")
        _require(self.absolute is None or self.absolute >= 0, f"Plateau.absolute is {self.absolute}, but must be ≥ 0")
        _require(0.5 < self.confidence < 1, f"Plateau.confidence is {self.confidence}, but must be between 0.5 and 1")

    def settled(self, directions: Mapping[str, bool]) -> Plateau:
        """The rule with the metric's own direction where none was given.

        Raises:
            ConfigError: the run does not measure its metric.
        """
        require_metric("metric", self.metric, directions)
        return replace(self, higher_is_better=directions[self.metric]) if self.higher_is_better is None else self

    def __call__(self, history: History) -> str | None:
        values = np.array(series(history, self.metric), dtype=np.float64)
        if len(values) < self.rounds:
            return None
        spread = series(history, "reward/std_within")[0]
        allowed = self.tolerance * spread if self.absolute is None else self.absolute
        errors = np.array(series(history, f"{ERROR_OF}{self.metric}"), dtype=np.float64)
        for length in range(self.rounds, len(values) + 1):
            if not np.isfinite(values[-length]):
                return None
            found = trend(values[-length:], errors[-length:], self.confidence)
            if found is not None and self._is_level(found, allowed):
                low, high = (bound * (self.rounds - 1) for bound in (found.low, found.high))
                bounds = f"{low:+.3g} to {high:+.3g} in {self.rounds} (tolerance {allowed:.3g})"
                return f"{self.metric} has levelled out: over the last {length} rounds its trend is {bounds}"
        return None

    def _is_level(self, found: Trend, allowed: float) -> bool:
        """Whether no improvement is shown, and no change beyond what is allowed is possible; False for an unknown tolerance."""
        better = found.high < 0 if self.higher_is_better is False else found.low > 0
        return not better and max(-found.low, found.high) * (self.rounds - 1) <= allowed


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
