"""Small pictures for pages, trackers and cards: enlarged or reduced without lying about what the model drew."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

PAPER = (255, 255, 255)
KEPT = (15, 139, 111)
JPEG_QUALITY = 95


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at most ``side`` pixels: reduced by Lanczos when larger, never enlarged."""
    from PIL import Image

    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """The picture a whole number of times larger, at most ``side`` on its longer side: pixels stay square and crisp."""
    from PIL import Image

    times = max(1, side // max(image.size))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def data_uri(image: Image.Image, lossless: bool = False) -> str:
    """The picture as a ``data:`` address, in WebP."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", lossless=lossless, quality=85, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def jpeg_kilobytes(image: Image.Image) -> float:
    """Size of the picture as a JPEG of quality 95, in units of 1000 bytes.

    Source: DDPO (2305.13301), section 5.1 and its released code.
    """
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.tell() / 1000


def contact_sheet(
    images: Sequence[Image.Image | None], columns: int, marked: Sequence[bool] | None = None, side: int = 96, gap: int = 4
) -> Image.Image:
    """One picture of many, row by row, on white; the marked ones are framed.

    Args:
        images: of one size or several; each is fitted into a square cell, and None leaves its cell empty.
        columns: pictures per row.
        marked: [N] which to frame.
        side: of a cell, pixels.
        gap: between cells, pixels, at least 3: the frame is drawn in it.
    """
    from PIL import Image, ImageDraw

    rows = -(-len(images) // columns)
    step = side + gap
    sheet = Image.new("RGB", (columns * step + gap, rows * step + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        if image is None:
            continue
        cell = fitted(enlarged(image.convert("RGB"), side), side)
        left = gap + (i % columns) * step + (side - cell.width) // 2
        top = gap + (i // columns) * step + (side - cell.height) // 2
        sheet.paste(cell, (left, top))
        if marked is not None and marked[i]:
            draw.rectangle((left - 3, top - 3, left + cell.width + 2, top + cell.height + 2), outline=KEPT, width=3)
    return sheet
