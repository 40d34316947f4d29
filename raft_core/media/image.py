"""Pictures as a kind of output, and small ones for pages, trackers and cards: enlarged or reduced without lying about what the
model drew."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raft_core.machine.files import replacing
from raft_core.media.picture import from_png, to_png
from raft_core.reading.files import Unreadable, excerpt
from raft_core.types import Sample

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

SHOWN_PROMPTS, SHOWN_SAMPLES, SIDE = 8, 4, 128  # in a notebook
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


@dataclass(frozen=True)
class ImageMedium:
    """PIL images; see ``raft_core.media.medium``. Stored as PNG in RGB, in columns that the library ``datasets`` shows."""

    modality: ClassVar[str] = "image"
    feature: ClassVar[dict[str, str]] = {"_type": "Image"}
    size_unit: ClassVar[str] = "kB as JPEG"

    def holds(self, output: Any) -> bool:
        return hasattr(output, "tobytes") and hasattr(output, "mode")

    def normalised(self, output: Image.Image) -> Image.Image:
        return output if output.mode == "RGB" else output.convert("RGB")

    def content(self, output: Image.Image) -> bytes:
        palette = output.getpalette() if output.mode == "P" else None
        return f"\x1f{output.mode}\x1f{output.size}\x1f{palette}\x1f".encode() + output.tobytes()

    def likeness(self, output: Image.Image) -> bytes:
        """Every pixel counts."""
        return self.content(output)

    def size(self, output: Image.Image) -> float:
        return jpeg_kilobytes(output)

    def column_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def column(self, outputs: Sequence[Image.Image | None], name: Callable[[int], str]) -> pa.Array:
        import pyarrow as pa

        with ThreadPoolExecutor() as pool:  # compression runs outside of Python's lock
            pngs = list(pool.map(lambda image: None if image is None else to_png(image), outputs))
        cells = [png and {"bytes": png, "path": f"{name(row)}.png"} for row, png in enumerate(pngs)]
        return pa.array(cells, self.column_type())

    def from_cell(self, cell: Any) -> Image.Image:
        if not isinstance(cell, dict):
            raise Unreadable(f"a stored picture is {excerpt(repr(cell), 40)}")
        return from_png(cell.get("bytes"))

    def to_message(self, output: Image.Image) -> str:
        return base64.b64encode(to_png(output)).decode("ascii")

    def line(self, output: Image.Image) -> dict[str, Any]:
        return {}

    def write(self, output: Image.Image, folder: Path, stem: str) -> tuple[dict[str, Any], list[Path]]:
        path = folder / f"{stem}.png"
        with replacing(path) as temporary:
            output.save(temporary, format="PNG")
        return {"file": path.name}, [path]

    def html(self, samples: Sequence[Sample]) -> str:
        sheet = contact_sheet([sample.output for sample in samples], min(len(samples), 8), side=SIDE)
        return f'<img src="{data_uri(sheet, lossless=True)}" alt="{len(samples)} pictures">'

    def still(self, output: Image.Image) -> Image.Image:
        return output

    def before_after(self, before: Sequence[Sample], after: Sequence[Sample], k: int) -> Image.Image:
        """A row per prompt: samples before at the left, those from the same noise after at the right."""
        columns, rows = min(k, SHOWN_SAMPLES), range(min(len(before) // k, SHOWN_PROMPTS))
        images = [side[row * k + j].output for row in rows for side in (before, after) for j in range(columns)]
        return contact_sheet(images, 2 * columns, side=SIDE)

    def probes(self) -> list[Image.Image]:
        return [_slopes(number) for number in range(4)]


def _slopes(number: int) -> Image.Image:
    """A 64×64 picture of slopes and stripes, another for every number."""
    from PIL import Image

    row, column = np.mgrid[0:64, 0:64]
    levels = [(number + 1) * row * 3, (number + 2) * column * 2, 128 + 100 * np.sin((row + number * column) / 5)]
    return Image.fromarray((np.stack(levels, axis=-1) % 256).astype(np.uint8))
