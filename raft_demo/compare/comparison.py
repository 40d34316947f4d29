"""Pictures of one prompt from the same noise, by several models or strengths: plain data, and a file to take away."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from raft_demo.shared.measures import Measure

if TYPE_CHECKING:
    from PIL.Image import Image

GAP = 4  # pixels between the pictures of a file


@dataclass(frozen=True)
class Asked:
    """What a visitor asks for, checked.

    Attributes:
        models: (label, what ``open_source`` calls it, checkpoint or None) of each.
        k: pictures of each.
        width, height: None = the model's own.
        strengths: of what was trained, each ≥ 0.
        slide: a pair lies one over the other, with a slider between them, and not side by side.
    """

    models: Sequence[tuple[str, str, str | None]]
    prompt: str
    k: int
    seed: int
    steps: int
    guidance_scale: float
    width: int | None
    height: int | None
    strengths: Sequence[float] = (1.0,)
    score: bool = True
    slide: bool = False


@dataclass(frozen=True)
class Column:
    """One model at one strength.

    Attributes:
        label: what a person reads.
        model: base model.
        target: what ``raft generate`` calls it.
        checkpoint: a round; None = what was exported.
        strength: of what was trained; 0 = before training.
        base: number of the column that shows the same model before training; its own for that one.
        pictures: K of them, from the same noise in every column; None for one that failed.
        failed: [K] why it failed, "" for a sound one.
        scores: measure → [K], NaN = not scored; empty until scored.
    """

    label: str
    model: str
    target: str
    checkpoint: str | None
    strength: float
    base: int
    pictures: Sequence[Image | None]
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failed: Sequence[str] = ()


@dataclass(frozen=True)
class Comparison:
    """What has been drawn so far.

    Attributes:
        columns: each model before training, then after.
        measures: the reward first.
        notes: what a person should know, such as a prompt that was cut off.
        seconds: for sampling and rendering, per picture.
    """

    asked: Asked
    columns: Sequence[Column]
    measures: Sequence[Measure] = ()
    notes: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def is_pairs(self) -> bool:
        """Whether it is, or will be, one model before and after, and nothing else."""
        one = len(self.asked.models) == 1 and len(self.asked.strengths) == 1
        return (len(self.columns) == 2 and self.columns[1].base == 0) or (len(self.columns) == 1 and one)

    @property
    def expected(self) -> int:
        """Columns that there will be, at most: each model before training, and at each strength."""
        return max(len(self.columns), len(self.asked.models) * (1 + len(self.asked.strengths)))


def difference(comparison: Comparison, column: Column, measure: Measure, picture: int) -> float:
    """The picture's score less that of the same model before training; NaN where either is missing."""
    before = comparison.columns[column.base].scores.get(measure.name)
    after = column.scores.get(measure.name)
    return float("nan") if before is None or after is None else float(after[picture]) - float(before[picture])


def facts(comparison: Comparison, picture: int) -> dict[str, Any]:
    """What the file of a picture's row says of itself, left to right."""
    asked = comparison.asked
    return {
        "prompt": asked.prompt,
        "seed": asked.seed,
        "picture": picture,
        "steps": asked.steps,
        "guidance_scale": asked.guidance_scale,
        "pictures": [
            {
                "label": column.label,
                "model": column.model,
                "run": column.target,
                "checkpoint": column.checkpoint,
                "strength": column.strength,
                **_drawn(column, picture),
                "scores": {name: _plain(values[picture]) for name, values in column.scores.items()},
            }
            for column in comparison.columns
        ],
        "software": f"raft-align {version('raft-align')}",
    }


def _drawn(column: Column, picture: int) -> dict[str, Any]:
    image = column.pictures[picture]
    return {"failed": column.failed[picture]} if image is None else {"size": list(image.size)}


def _plain(value: float) -> float | None:
    """None for NaN, which JSON has no word for."""
    return None if math.isnan(value) else round(float(value), 6)


def row_png(comparison: Comparison, picture: int) -> bytes:
    """A PNG of one row, before on the left, that carries its prompt, seed, settings, models and scores.

    ``prompt``, ``seed`` and so on can be read by any program that shows a PNG's texts; ``raft`` holds all of it as JSON. What
    failed is left out of the row.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    drawn = [image for column in comparison.columns if (image := column.pictures[picture]) is not None]
    pictures = [image.convert("RGB") for image in drawn]
    width = sum(each.width for each in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (max(width, 1), max((each.height for each in pictures), default=1)), "white")
    x = 0
    for each in pictures:
        sheet.paste(each, (x, 0))
        x += each.width + GAP
    told = facts(comparison, picture)
    info = PngInfo()
    for name in ("prompt", "seed", "steps", "guidance_scale", "software"):
        info.add_itxt(name, str(told[name]))
    info.add_itxt("raft", json.dumps(told, ensure_ascii=False))
    data = io.BytesIO()
    sheet.save(data, format="PNG", pnginfo=info)
    return data.getvalue()
