"""Before and after in words and aligned figures, for a terminal or a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raft_core.evaluation.evaluate import Comparison, Evaluation, Spread
from raft_core.metrics.statistics import Estimate

SPLITS = {"train": "training prompts", "heldout": "held-out prompts"}
FEW_PROMPTS = 10
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Row:
    """One line of a before/after table.

    Attributes:
        split: the evaluation's.
        name: of the reward or judge, or "diversity".
        role: "reward", "part", "judge" or "diversity".
        before, after: means.
        difference: signed.
        interval: of the difference.
        win_rate: in per cent; empty for the diversity.
        win_interval: of the win rate.
        verdict: "better", "worse", "unclear"; empty for the diversity, which has no direction of its own.
    """

    split: str
    name: str
    role: str
    before: str
    after: str
    difference: str
    interval: str
    win_rate: str
    win_interval: str
    verdict: str


def rows(evaluations: Sequence[Evaluation]) -> list[Row]:
    """The before/after table: for each set of prompts every reward and judge, then the diversity."""
    found: list[Row] = []
    for evaluation in evaluations:
        split = evaluation.split
        found += [_comparison_row(split, comparison) for comparison in evaluation.comparisons]
        if evaluation.diversity:
            found.append(_spread_row(split, evaluation.diversity))
    return found


def split_name(split: str) -> str:
    return SPLITS.get(split, split)


def _comparison_row(split: str, c: Comparison) -> Row:
    return Row(
        split=split,
        name=c.name,
        role=c.role,
        before=number(c.before),
        after=number(c.after),
        difference=number(c.difference.value, signed=True),
        interval=interval(c.difference),
        win_rate=f"{100 * c.win_rate.value:.0f} %" if c.pairs else "–",
        win_interval=f"{100 * c.win_rate.low:.0f} … {100 * c.win_rate.high:.0f} %" if c.pairs else "–",
        verdict=c.verdict,
    )


def _spread_row(split: str, spread: Spread) -> Row:
    return Row(
        split=split,
        name="diversity",
        role="diversity",
        before=number(spread.before),
        after=number(spread.after),
        difference=number(spread.difference.value, signed=True),
        interval=interval(spread.difference),
        win_rate="",
        win_interval="",
        verdict="",
    )


def number(value: float, signed: bool = False) -> str:
    """Three decimals below ten, fewer above; – for NaN; a true minus sign."""
    if not np.isfinite(value):
        return "–"
    decimals = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def interval(estimate: Estimate) -> str:
    if not np.isfinite(estimate.low):
        return "–"
    return f"{number(estimate.low, signed=True)} … {number(estimate.high, signed=True)}"


def sentences(evaluation: Evaluation) -> list[str]:
    """What the intervals allow to say of one set of prompts, a sentence per reward and judge, and what they do not allow."""
    found = [sentence(comparison, evaluation.level) for comparison in evaluation.comparisons]
    if evaluation.diversity:
        found.append(_spread_sentence(evaluation.diversity))
    return found


def sentence(c: Comparison, level: float = 0.95) -> str:
    """One comparison in words."""
    role = {"reward": "the reward", "part": "part of the reward", "judge": "a judge, never trained on"}[c.role]
    start = f"{c.name} ({role})"
    if not c.pairs:
        return f"{start} scored no pair, so nothing can be said."
    change = f"from {number(c.before)} to {number(c.after)}"
    if not np.isfinite(c.difference.low):
        return f"{start} went {change}; there are too few prompts for an interval."
    bounds = f"{100 * level:.0f}{NO_BREAK}% interval of the difference {interval(c.difference).replace(' ', NO_BREAK)}"
    if c.verdict == "unclear":
        return f"{start} went {change}; the {bounds} holds 0, so no change is shown."
    verb = "rose" if c.difference.value > 0 else "fell"
    direction = "" if c.higher_is_better else ", for which lower is better,"
    worse = " It got worse." if c.verdict == "worse" else ""
    return f"{start}{direction} {verb} {change} ({bounds}).{worse}"


def _spread_sentence(spread: Spread) -> str:
    lost = 1 - spread.after / spread.before if spread.before else float("nan")
    text = f"The diversity within a prompt went from {number(spread.before)} to {number(spread.after)}"
    if np.isfinite(lost) and abs(lost) >= 0.005:
        text += f", {100 * abs(lost):.0f} % {'less' if lost > 0 else 'more'}"
    return text + "."


def notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """How the figures are made and how far they carry; for the small print."""
    if not evaluations:
        return []
    level = f"{100 * evaluations[0].level:.0f} %"
    found = [
        "Before is the model as it came, after is the trained one; both drew from the same seeds and random numbers, "
        "and every figure compares pair by pair.",
        f"Intervals of differences are {level} BCa bootstrap intervals that resample prompts, since samples of a prompt are "
        "not independent.",
        f"The win rate is the share of pairs that are better after, ties counted half, with a {level} Wilson interval for as "
        "many pairs as the prompts' differences leave independent.",
    ]
    few = [e for e in evaluations if len(e.prompts) < FEW_PROMPTS]
    if few:
        which = " and ".join(f"{len(e.prompts)} {split_name(e.split)}" for e in few)
        found.append(f"With only {which} the intervals are narrower than they should be.")
    return found
