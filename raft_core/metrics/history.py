"""Metrics of a run by round."""

from __future__ import annotations

import math
from collections.abc import Mapping

from raft_core.errors import ConfigError, nearest
from raft_core.protocols import History

ERROR_OF = "se/"  # in front of a metric's name: its standard error


def series(history: History, metric: str) -> list[float]:
    """One metric by round; NaN where a round lacks it."""
    return [value if isinstance(value := row.get(metric), (int, float)) else math.nan for row in history]


def best_round(history: History, metric: str, higher_is_better: bool | None = True) -> int | None:
    """Number of the round with the best value of ``metric``, the earliest of equals; None when no round has it.

    A round that trained nothing is no round that worked, whatever its samples scored.

    Args:
        higher_is_better: the direction; None, which nobody has settled, counts as higher.
    """
    sign = -1 if higher_is_better is False else 1
    scored = [
        (sign * value, -row["round"])
        for row, value in zip(history, series(history, metric), strict=True)
        if math.isfinite(value) and row.get("train/steps") != 0
    ]
    return -max(scored)[1] if scored else None


def require_metric(argument: str, metric: str, directions: Mapping[str, bool]) -> None:
    """Refuse a metric that no round will have.

    Raises:
        ConfigError: names the nearest one that there is.
    """
    if metric not in directions:
        raise ConfigError(f"{argument} is {metric!r}, but no round has such a metric{nearest(metric, directions)}")
