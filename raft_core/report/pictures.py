"""What the report shows: pairs chosen by rule and not by hand, and contact sheets of rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.table import number
from raft_core.format import evenly, figure
from raft_core.media.image import data_uri, enlarged, fitted
from raft_core.report.data import StoredRound
from raft_core.types import Sample

PAIR_SIDE = 160  # on the page; twice that in the file, for dense screens
GRID_PAIRS = 24
EACH_KIND = 3
SHEET_PROMPTS, SHEET_SAMPLES, THUMB, SHEET_WIDTH = 12, 16, 96, 868


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
    """A before/after pair with its scores: (name, before, after, change) each in text."""

    prompt: str
    seed: int
    index: int
    change: float
    before: View
    after: View
    scores: tuple[tuple[str, str, str, str], ...]


def view_sample(sample: Sample, alt: str) -> View:
    """The sample's output, or why it has none."""
    return View(alt, failed=sample.failed) if sample.failed else view(sample.output, alt)


def view(output: Any, alt: str) -> View:
    """A picture no larger than it needs to be. The pixels of a small one stay squares, however the browser scales it."""
    if isinstance(output, str):
        return View(alt, text=output)
    longer = max(output.size)
    small = longer <= PAIR_SIDE
    # Lossy compression would smear the few pixels that are to be judged; in a large picture it is not seen.
    uri = data_uri(enlarged(output, longer * -(-2 * PAIR_SIDE // longer)) if small else fitted(output, 2 * PAIR_SIDE), small)
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
        scores.append((name, number(first), number(second), number(second - first, signed=True)))
    return PairView(
        prompt=prompt,
        seed=before.seed,
        index=before.request.index,
        change=float(changes(evaluation)[i]),
        before=view_sample(before, f"before: {prompt}"),
        after=view_sample(after, f"after: {prompt}"),
        scores=tuple(scores),
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


# ---------------------------------------------------------------------- contact sheets


@dataclass(frozen=True)
class Cell:
    """A sample on a sheet."""

    title: str
    kept: bool
    text: str = ""


@dataclass(frozen=True)
class Sheet:
    """Samples of a round, a row per prompt: one picture with cells laid over it, or cells of text."""

    rnd: int
    summary: str
    prompts: tuple[str, ...]
    columns: int
    cells: tuple[Cell, ...]
    uri: str
    alt: str
    crisp: bool
    cell_side: int
    left_out: str


def sheet(shown: StoredRound, metrics: Mapping[str, Any]) -> Sheet | None:
    """The sheet of a round; None when its outputs were not kept."""
    if not shown.samples or any(sample.output is None and not sample.failed for sample in shown.samples):
        return None
    prompts = evenly(range(len(shown.samples) // shown.k), SHEET_PROMPTS)
    rows = [_columns(shown, p) for p in prompts]
    flat = [i for row in rows for i in row]
    is_text = any(isinstance(sample.output, str) for sample in shown.samples)
    sizes = [shown.samples[i].output.size for i in flat if not is_text and not shown.samples[i].failed]
    side = 0 if is_text else min(THUMB, max(map(max, sizes), default=THUMB))
    left_out = []
    if len(prompts) < len(shown.samples) // shown.k:
        left_out.append(f"{len(prompts)} of {len(shown.samples) // shown.k} prompts")
    if len(rows[0]) < shown.k:
        left_out.append(f"{len(rows[0])} of {shown.k} samples each")
    kept = sum(shown.kept)
    return Sheet(
        rnd=shown.rnd,
        summary=_summary(metrics),
        prompts=tuple(shown.samples[row[0]].prompt.text for row in rows),
        columns=len(rows[0]),
        cells=tuple(_cell(shown, i, is_text) for i in flat),
        uri="" if is_text else _joined([shown.samples[i].output for i in flat], len(rows[0]), side),
        alt=f"{len(flat)} samples of round {shown.rnd}, a row per prompt; {kept} of the round were kept",
        crisp=side < THUMB,
        cell_side=min(112, max(54, SHEET_WIDTH // len(rows[0]))),
        left_out=", ".join(left_out),
    )


def _columns(shown: StoredRound, p: int) -> list[int]:
    """Flat indices of the samples of a prompt that are shown: all, or the first ones with every kept one among them."""
    rows = list(range(p * shown.k, (p + 1) * shown.k))
    if len(rows) <= SHEET_SAMPLES:
        return rows
    kept = [i for i in rows if shown.kept[i]][:SHEET_SAMPLES]
    others = [i for i in rows if i not in kept][: SHEET_SAMPLES - len(kept)]
    return sorted(kept + others)


def _cell(shown: StoredRound, i: int, is_text: bool) -> Cell:
    sample = shown.samples[i]
    scores = ", ".join(f"{name} {number(float(values[i]))}" for name, values in shown.scores.columns.items())
    told = f"failed: {sample.failed}" if sample.failed else scores
    title = f"{sample.prompt.text}\n{told}{' · kept' if shown.kept[i] else ''}"
    return Cell(title, shown.kept[i], (sample.output or told) if is_text else "")


def _joined(images: Sequence[Any], columns: int, side: int) -> str:
    """One picture of all, cell by cell without gaps: smaller than as many single ones by far. None leaves its cell grey."""
    from PIL import Image

    rows = -(-len(images) // columns)
    joined = Image.new("RGB", (columns * side, rows * side), (128, 128, 128))
    for i, image in enumerate(images):
        if image is None:
            continue
        small = fitted(image, side)
        left, top = (i % columns) * side + (side - small.width) // 2, (i // columns) * side + (side - small.height) // 2
        joined.paste(small, (left, top))
    # Lossy compression keeps colour at half the resolution: of small pictures that would be too little.
    return data_uri(enlarged(joined, 2 * max(joined.size)) if side <= THUMB // 2 else joined)


def _summary(metrics: Mapping[str, Any]) -> str:
    names = {"mean": "reward/mean", "best": "reward/best", "kept": "reward/kept"}
    return ", ".join(f"{label} {figure(metrics[key])}" for label, key in names.items() if key in metrics)
