"""Samples of the rounds as the report shows them: the best and all of a prompt, round after round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raft_core.evaluation.table import number
from raft_core.format import evenly
from raft_core.media.image import data_uri, enlarged
from raft_core.report.data import StoredRound
from raft_core.report.facts import label
from raft_core.report.pictures import View, view
from raft_core.types import Sample

SHOWN_PROMPTS, SHOWN_SAMPLES = 12, 16
THUMB = 96  # pixels of a sample's longer side in a sheet, at most
SHARP = 128  # a smaller picture is enlarged to at least this, so that lossy compression spares its pixels
SMALLEST = 40
MOST_PIXELS, MOST_ENLARGED = 6e6, 24e6  # of all sheets together: the page stays below some 3 MB
LONGEST_TEXT = 1500  # characters


@dataclass(frozen=True)
class Cell:
    """A sample: where it lies in the sheet of its round, or its text, or why it has neither."""

    title: str
    kept: bool
    x: int = 0
    y: int = 0
    text: str = ""
    failed: str = ""


@dataclass(frozen=True)
class Panel:
    """What a round drew for a prompt.

    Attributes:
        cells: best first.
        best: the reward of the first of them.
        large: the first of them, where the sheet shows it smaller than it is.
    """

    cells: tuple[Cell, ...]
    best: str
    large: View | None = None


@dataclass(frozen=True)
class RoundView:
    """A round: a panel for each of the story's prompts, None where it did not draw the prompt.

    Attributes:
        told: its figures in words.
        diversity: within prompts, in text; "" where it was not measured.
        uri: the sheet, one picture of ``columns`` × ``rows`` cells; "" for texts.
    """

    rnd: int
    told: str
    diversity: str
    panels: tuple[Panel | None, ...]
    uri: str = ""
    columns: int = 1
    rows: int = 1


@dataclass(frozen=True)
class Story:
    """The rounds that are shown, and the prompts that they share.

    Attributes:
        width, height: of a sample's picture in a sheet, before it is enlarged.
        crisp: its pixels are few, and are to be seen as squares.
        note: what was left out, in words.
    """

    prompts: tuple[str, ...]
    rounds: tuple[RoundView, ...]
    reward: str
    is_text: bool
    width: int = 1
    height: int = 1
    crisp: bool = False
    note: str = ""

    @property
    def shared(self) -> bool:
        """Whether every round shown drew every prompt shown."""
        return all(panel for shown in self.rounds for panel in shown.panels)

    @property
    def begins(self) -> int:
        """The prompt that is shown first: the first that the last round drew."""
        return next((i for i, panel in enumerate(self.rounds[-1].panels) if panel), 0)

    @property
    def ends(self) -> list[tuple[Panel, Panel] | None]:
        """By prompt, its panels of the first and of the last round; None where one of them did not draw it."""
        first, last = self.rounds[0].panels, self.rounds[-1].panels
        return [
            (a, b) if len(self.rounds) > 1 and a and b and len(a.cells) > 1 else None for a, b in zip(first, last, strict=True)
        ]


def story(stored: Sequence[StoredRound], metrics: Mapping[int, Mapping[str, Any]], of: int) -> Story | None:
    """What is shown of the rounds; None where none of them has outputs.

    Args:
        metrics: by round.
        of: how many rounds the run has stored.
    """
    kept = [shown for shown in stored if shown.samples and all(s.output is not None or s.failed for s in shown.samples)]
    if not kept:
        return None
    groups = [_by_prompt(shown) for shown in kept]
    prompts = _chosen_prompts(groups)
    rows = [
        [_chosen_samples(shown, of_prompt.get(p, [])) for p in prompts] for shown, of_prompt in zip(kept, groups, strict=True)
    ]
    outputs = [
        shown.samples[i].output for shown in kept for i in range(len(shown.samples)) if shown.samples[i].output is not None
    ]
    is_text = any(isinstance(output, str) for output in outputs)
    size = (0, 0, 1) if is_text or not outputs else _cell_size(outputs[0].size, sum(len(row) for each in rows for row in each))
    width, height, times = size
    return Story(
        prompts=tuple(prompts),
        rounds=tuple(
            _round_view(shown, metrics.get(shown.rnd, {}), row, None if is_text else (width, height, times))
            for shown, row in zip(kept, rows, strict=True)
        ),
        reward=label(kept[-1].scores.reward),
        is_text=is_text,
        width=width or 1,
        height=height or 1,
        crisp=0 < max(width, height) <= THUMB // 2,
        note=_left_out(kept, groups, prompts, rows, of),
    )


def _by_prompt(shown: StoredRound) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, sample in enumerate(shown.samples):
        found.setdefault(sample.prompt.text, []).append(i)
    return found


def _chosen_prompts(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Prompts that every shown round drew, so that they can be followed; where there is none, some of each round."""
    shared = [prompt for prompt in groups[0] if all(prompt in group for group in groups)]
    if shared:
        return evenly(shared, SHOWN_PROMPTS)
    each = max(1, SHOWN_PROMPTS // len(groups))
    return list(dict.fromkeys(prompt for group in groups for prompt in evenly(list(group), each)))


def _chosen_samples(shown: StoredRound, rows: Sequence[int]) -> list[int]:
    """The samples of a prompt that are shown, best first: all, or the first ones with every kept one among them."""
    if len(rows) > SHOWN_SAMPLES:
        kept = [i for i in rows if shown.kept[i]][:SHOWN_SAMPLES]
        rows = kept + [i for i in rows if i not in kept][: SHOWN_SAMPLES - len(kept)]
    values, sign = shown.rewards, 1 if shown.scores.reward in shown.scores.descending else -1
    return sorted(rows, key=lambda i: (math.isnan(values[i]), sign * values[i], i))


def _cell_size(size: tuple[int, int], n: int) -> tuple[int, int, int]:
    """(width, height) of a cell's picture and how many times it is enlarged in the file, for n cells in all."""
    width, height = size
    longer, ratio = max(size), min(size) / max(size)
    side = max(SMALLEST, min(THUMB, int(math.sqrt(MOST_PIXELS / (max(n, 1) * ratio)))))
    if side < longer:
        return max(1, round(width * side / longer)), max(1, round(height * side / longer)), 1
    most = max(1, int(math.sqrt(MOST_ENLARGED / (max(n, 1) * width * height))))
    return width, height, min(most, math.ceil(SHARP / longer))


def _round_view(
    shown: StoredRound, metrics: Mapping[str, Any], rows: Sequence[Sequence[int]], size: tuple[int, int, int] | None
) -> RoundView:
    columns = max(1, *map(len, rows))
    panels = tuple(_panel(shown, row, y, size) if row else None for y, row in enumerate(rows))
    told = [f"{number(metrics[key])} {words}" for key, words in _FIGURES.items() if isinstance(metrics.get(key), (int, float))]
    return RoundView(
        rnd=shown.rnd,
        told=f"{label(shown.scores.reward)} {', '.join(told)}" if told else "",
        diversity=number(metrics["diversity"]) if isinstance(metrics.get("diversity"), (int, float)) else "",
        panels=panels,
        uri="" if size is None else _sheet([[shown.samples[i].output for i in row] for row in rows], columns, *size),
        columns=columns,
        rows=len(rows),
    )


_FIGURES = {"reward/mean": "on average", "reward/best": "the best of each prompt"}


def _panel(shown: StoredRound, row: Sequence[int], y: int, size: tuple[int, int, int] | None) -> Panel:
    first = shown.samples[row[0]]
    reduced = size is not None and not first.failed and max(first.output.size) > max(size[:2])
    return Panel(
        cells=tuple(_cell(shown, i, x, y, len(row), size is None) for x, i in enumerate(row)),
        best=number(shown.rewards[row[0]]),
        large=view(first.output, _alt(first)) if reduced else None,
    )


def _cell(shown: StoredRound, i: int, x: int, y: int, of: int, is_text: bool) -> Cell:
    sample, kept = shown.samples[i], bool(shown.kept[i])
    scores = [f"{label(name)} {number(float(values[i]))}" for name, values in shown.scores.columns.items()]
    told = [f"failed: {sample.failed}"] if sample.failed else [f"{x + 1} of {of}", *scores]
    text = sample.output.strip() if is_text and not sample.failed else ""
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]} …"
    return Cell(" · ".join([*told, *(["kept"] if kept else [])]), kept, x, y, text, sample.failed)


def _alt(sample: Sample) -> str:
    return f"the best of: {sample.prompt.text}"


def _sheet(rows: Sequence[Sequence[Any]], columns: int, width: int, height: int, times: int) -> str:
    """One picture of all, a row per prompt, without gaps: smaller by far than as many single ones. What is missing is grey."""
    from PIL import Image, ImageOps

    joined = Image.new("RGB", (columns * width, len(rows) * height), (128, 128, 128))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            if image is None:
                continue
            if image.width > width or image.height > height:
                image = ImageOps.contain(image, (width, height), Image.Resampling.LANCZOS)
            joined.paste(image, (x * width + (width - image.width) // 2, y * height + (height - image.height) // 2))
    return data_uri(enlarged(joined, times * max(joined.size)))


def _left_out(
    kept: Sequence[StoredRound],
    groups: Sequence[Mapping[str, Sequence[int]]],
    prompts: Sequence[str],
    rows: Sequence[Sequence[Sequence[int]]],
    of: int,
) -> str:
    """What the story does not show, in words; "" where it shows everything."""
    found = [f"{len(kept)} of {of} rounds"] if len(kept) < of else []
    every = len({prompt for group in groups for prompt in group})
    if len(prompts) < every:
        found.append(f"{len(prompts)} of {every} prompts")
    drawn = max(len(group.get(prompt, ())) for group in groups for prompt in prompts)
    shown = max(len(row) for each in rows for row in each)
    if shown < drawn:
        found.append(f"{shown} of {drawn} samples of each, every kept one among them")
    return f"Shown are {', '.join(found)}." if found else ""
