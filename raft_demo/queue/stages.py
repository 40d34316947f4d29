"""How far an alignment is: one bar over all its stages, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raft_core.format import duration

#: (begins, takes) of a round, by the name of the phase.
ROUND = {"sampling": (0.0, 0.35), "rendering": (0.35, 0.05), "scoring": (0.4, 0.1), "training": (0.5, 0.5)}
#: The same of the comparison after the last round, which takes about as long as one.
COMPARISON = {
    "evaluate train: sample": (0.0, 0.3),
    "evaluate train: score": (0.3, 0.1),
    "evaluate heldout: sample": (0.4, 0.45),
    "evaluate heldout: score": (0.85, 0.15),
}
WORDS = {
    "sampling": "drawing samples",
    "rendering": "decoding them",
    "scoring": "scoring them",
    "training": "learning from the kept ones",
    "evaluate train: sample": "comparing before and after: drawing prompts that were trained on",
    "evaluate train: score": "comparing before and after: scoring them",
    "evaluate heldout: sample": "comparing before and after: drawing held-out prompts",
    "evaluate heldout: score": "comparing before and after: scoring them",
}


def done(phases: Sequence[Mapping[str, Any]], rounds: int, planned: int) -> float:
    """Stages that are over, of ``planned`` + 1: every round, and the comparison.

    Args:
        phases: open bars, outer ones first.
        rounds: finished.
    """
    if not phases:
        return float(min(rounds, planned))
    inner = phases[-1]
    share = inner["done"] / inner["total"] if inner["total"] else 0.0
    if phases[0]["name"] == "rounds":
        begins, takes = ROUND.get(inner["name"], (0.0, 0.0))
        return min(rounds, planned) + begins + takes * share
    begins, takes = COMPARISON.get(inner["name"], (0.0, 0.0))
    return planned + begins + takes * share


def words(phases: Sequence[Mapping[str, Any]]) -> str:
    """What is done now, as a person would say it."""
    inner = phases[-1]
    return WORDS.get(inner["name"], "between two steps" if inner["name"] == "rounds" else inner["name"])


def time_left(history: Sequence[Mapping[str, Any]], over: float, planned: int) -> str:
    """In words, from the rounds so far; "" before the first is finished."""
    took = [row["time/round_s"] for row in history if isinstance(row.get("time/round_s"), (int, float))]
    if not took:
        return ""
    return f"about {duration(max(1.0, (planned + 1 - over) * sum(took) / len(took)))} left"
