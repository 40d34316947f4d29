"""Before/after pairs as the report shows them, chosen by rule and not by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.table import number
from raft_core.format import evenly
from raft_core.media.image import data_uri, enlarged, fitted
from raft_core.report.differing import Marked, marked_words
from raft_core.report.facts import label
from raft_core.types import Sample

PAIR_SIDE = 160  # on the page; twice that in the file, for dense screens
GRID_PAIRS = 24
EACH_KIND = 3
FEW_PIXELS = 48  # a picture of no more is kept without loss


@dataclass(frozen=True)
class View:
    """An output as the page shows it: a picture by its address and size on the page, or a text, or why there is none."""

    alt: str
    uri: str = ""
    width: int = 0
    height: int = 0
    text: str = ""
    failed: str = ""


@dataclass(frozen=True)
class PairView:
    """A before/after pair.

    Attributes:
        change: how much better it is after, by the reward; NaN where a side is not scored.
        scores: (name, before, after, change) each in text.
        marked: of texts, both sides in runs of (text, is it only on this side).
    """

    prompt: str
    seed: int
    index: int
    change: float
    before: View
    after: View
    scores: tuple[tuple[str, str, str, str], ...]
    marked: tuple[Marked, Marked] | None = None


def view_sample(sample: Sample, alt: str) -> View:
    """The sample's output, or why it has none."""
    return View(alt, failed=sample.failed) if sample.failed else view(sample.output, alt)


def view(output: Any, alt: str) -> View:
    """A picture no larger than it needs to be. The pixels of a small one stay squares, however the browser scales it."""
    if isinstance(output, str):
        return View(alt, text=output)
    longer = max(output.size)
    large = enlarged(output, longer * -(-2 * PAIR_SIDE // longer)) if longer <= PAIR_SIDE else fitted(output, 2 * PAIR_SIDE)
    # Lossy compression would smear the few pixels that are to be judged. Of more, each enlarged, it shows nothing.
    uri = data_uri(large, lossless=longer <= FEW_PIXELS)
    return View(alt, uri, round(output.width * PAIR_SIDE / longer), round(output.height * PAIR_SIDE / longer))


def changes(evaluation: Evaluation) -> np.ndarray:
    """[N] how much better each pair is after, by the reward; NaN where a side is not scored."""
    name = evaluation.scores_before.reward
    sign = -1 if name in evaluation.scores_before.descending else 1
    return sign * (evaluation.scores_after.columns[name] - evaluation.scores_before.columns[name])


def pair_view(evaluation: Evaluation, i: int) -> PairView:
    before, after = evaluation.before[i], evaluation.after[i]
    prompt = before.prompt.text
    scores = []
    for name, values in evaluation.scores_before.columns.items():
        first, second = float(values[i]), float(evaluation.scores_after.columns[name][i])
        scores.append((label(name), number(first), number(second), number(second - first, signed=True)))
    left, right = view_sample(before, f"before: {prompt}"), view_sample(after, f"after: {prompt}")
    return PairView(
        prompt=prompt,
        seed=before.seed,
        index=before.request.index,
        change=float(changes(evaluation)[i]),
        before=left,
        after=right,
        scores=tuple(scores),
        marked=marked_words(left.text.strip(), right.text.strip()) if left.text and right.text else None,
    )


def first_of_each(evaluation: Evaluation) -> list[PairView]:
    """The first sample of each prompt: chosen before anything was drawn."""
    rows = range(0, len(evaluation.before), evaluation.k)
    return [pair_view(evaluation, i) for i in evenly(rows, GRID_PAIRS)]


def best_median_worst(evaluation: Evaluation) -> dict[str, list[PairView]]:
    """Pairs by their change in the reward: the largest, the middle, the smallest; no pair twice."""
    change = changes(evaluation)
    order = [int(i) for i in np.argsort(-change, kind="stable") if not np.isnan(change[i])]
    each = min(EACH_KIND, len(order) // 3)
    if not each:
        return {}
    middle = (len(order) - each) // 2
    chosen = {
        "Best change": order[:each],
        "Median change": order[middle : middle + each],
        "Worst change": order[-each:],
    }
    return {title: [pair_view(evaluation, i) for i in rows] for title, rows in chosen.items()}
