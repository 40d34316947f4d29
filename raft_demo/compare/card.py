"""A row of a comparison as a picture to post: enlarged crisply, with its prompt, labels and scores."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from raft_core.evaluation.table import number
from raft_core.media.image import PAPER, enlarged, fitted
from raft_demo.compare.comparison import Column, Comparison

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

SIDE, GAP = 384, 28  # pixels: of a picture's longer side at most, and around everything
INK, SOFT = (29, 29, 27), (98, 97, 93)
MOST_LINES = 3  # of the prompt


def card_png(comparison: Comparison, picture: int) -> bytes:
    """The pictures of one row side by side, what failed left out, as a PNG."""
    from PIL import Image, ImageDraw, ImageFont

    title, small = ImageFont.load_default(24), ImageFont.load_default(18)
    columns = [column for column in comparison.columns if column.pictures[picture] is not None]
    shown = [_large(column.pictures[picture]) for column in columns]
    width = max(SIDE, sum(each.width for each in shown) + GAP * (len(shown) - 1)) + 2 * GAP
    prompt = _wrapped(comparison.asked.prompt, title, width - 2 * GAP)
    top = GAP + 32 * len(prompt) + 44
    height = top + max((each.height for each in shown), default=0) + 16 + 26 * len(comparison.measures) + GAP
    card = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(card)
    for line, text in enumerate(prompt):
        pen.text((GAP, GAP + 32 * line), text, INK, title)
    x = GAP
    for column, each in zip(columns, shown, strict=True):
        pen.text((x, top - 30), column.label, SOFT, small)
        card.paste(each, (x, top))
        for line, text in enumerate(_scores(comparison, column, picture)):
            pen.text((x, top + each.height + 12 + 26 * line), text, INK, small)
        x += each.width + GAP
    data = io.BytesIO()
    card.save(data, format="PNG")
    return data.getvalue()


def _large(picture: Image | None) -> Image:
    assert picture is not None, "those that failed are left out"
    return enlarged(fitted(picture.convert("RGB"), SIDE), SIDE)


def _scores(comparison: Comparison, column: Column, picture: int) -> list[str]:
    return [
        f"{measure.name.replace('_', ' ')} {number(column.scores[measure.name][picture])}"
        for measure in comparison.measures
        if measure.name in column.scores
    ]


def _wrapped(text: str, font: FreeTypeFont | ImageFont, width: float) -> list[str]:
    """The text in at most ``MOST_LINES`` lines; an ellipsis stands for the rest."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    lines = [*lines, line]
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1]} …"]
