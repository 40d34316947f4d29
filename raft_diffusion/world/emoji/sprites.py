"""The sprites, cut from Noto Color Emoji once and kept beside this file: `python -m raft_diffusion.world.emoji.sprites FONT`.

Noto Color Emoji: images Apache-2.0, font SIL Open Font License 1.1, © Google. On Debian the font is
`/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf` of the package `fonts-noto-color-emoji`; only this script needs it.
"""

import argparse
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

GLYPHS = {
    "cat": "🐱", "dog": "🐶", "fox": "🦊", "bear": "🐻", "panda": "🐼", "frog": "🐸", "owl": "🦉", "fish": "🐟",
    "butterfly": "🦋", "flower": "🌼", "tree": "🌳", "cactus": "🌵", "apple": "🍎", "cherry": "🍒", "strawberry": "🍓",
    "cake": "🍰", "house": "🏠", "car": "🚗", "rocket": "🚀", "ball": "⚽", "star": "⭐", "heart": "❤️", "moon": "🌙",
    "umbrella": "☂️",
}  # fmt: skip
OBJECTS = tuple(GLYPHS)
SHEET = Path(__file__).with_name("sprites.png")
COLUMNS = 8
CELL = 128  # pixels of a sprite's square in the sheet
GLYPH = 109  # the one size, in points, of the font's bitmaps
SPECK = 0.02  # parts smaller than this share of the largest part are left out: stars around the rocket
MARGIN = 0.5  # transparent border around a sprite when it is drawn, in cells: room for the shadow and for resampling
SHADOW_BLUR, SHADOW_SHIFT = 0.05, (0.02, 0.06)  # in cells

# The tints: black, colour, light along the sprite's own lightness.
TINTS = {
    "red": (226, 52, 48),
    "yellow": (238, 190, 24),
    "green": (62, 168, 72),
    "blue": (52, 112, 226),
    "purple": (148, 76, 204),
}
# A tint that an object has by nature would be no tint.
OWN = {
    "cat": ("yellow",), "fox": ("red",), "frog": ("green",), "fish": ("blue",), "flower": ("yellow",), "tree": ("green",),
    "cactus": ("green",), "apple": ("red",), "cherry": ("red",), "strawberry": ("red",), "cake": ("yellow", "red"),
    "house": ("red",), "car": ("red",), "rocket": ("red", "blue"), "star": ("yellow",), "heart": ("red",), "moon": ("yellow",),
    "umbrella": ("blue", "purple"), "butterfly": ("yellow",),
}  # fmt: skip


def tints_of(kind: str) -> tuple[str, ...]:
    """The tints that an object can have."""
    return tuple(tint for tint in TINTS if tint not in OWN.get(kind, ()))


@cache
def sprite(kind: str, tint: str | None = None) -> Image.Image:
    """The sprite in the middle of its transparent margin, RGBA; `tint` colours it by its own lightness."""
    with Image.open(SHEET) as sheet:
        row, column = divmod(OBJECTS.index(kind), COLUMNS)
        cut = sheet.convert("RGBA").crop((column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
    return _framed(_tinted(cut, TINTS[tint]) if tint else cut)


@cache
def shadow(kind: str) -> Image.Image:
    """The sprite's soft shadow in the same frame, L: 255 where it is darkest."""
    cover = sprite(kind).getchannel("A")
    right, down = SHADOW_SHIFT
    moved = Image.new("L", cover.size)
    moved.paste(cover, (round(right * CELL), round(down * CELL)))
    return moved.filter(ImageFilter.GaussianBlur(SHADOW_BLUR * CELL))


def _framed(cut):
    border = round(MARGIN * CELL)
    frame = Image.new("RGBA", (CELL + 2 * border, CELL + 2 * border))
    frame.paste(cut, (border, border))
    return frame


def _tinted(cut, colour):
    """Black to the colour over the lower half of lightness, then halfway to white."""
    pixels = np.asarray(cut).astype(np.float32)
    light = (pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32))[..., None] / 255
    tone = np.array(colour, np.float32)
    dark = tone * np.clip(light * 2, 0.12, 1)
    pixels[..., :3] = dark + np.clip(light * 2 - 1, 0, 1) * 0.6 * (255 - tone)
    return Image.fromarray((pixels + 0.5).clip(0, 255).astype(np.uint8), "RGBA")


def cut_sheet(font: Path) -> Image.Image:
    """All sprites in one picture, each scaled to fill its cell in one direction and centred."""
    face = ImageFont.truetype(str(font), GLYPH)
    rows = -(-len(OBJECTS) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for index, glyph in enumerate(GLYPHS.values()):
        row, column = divmod(index, COLUMNS)
        sheet.paste(_fitted(_without_specks(_drawn(face, glyph))), (column * CELL, row * CELL))
    return sheet


def _drawn(face, glyph):
    page = Image.new("RGBA", (2 * CELL, 2 * CELL))
    ImageDraw.Draw(page).text((CELL // 2, CELL // 2), glyph, font=face, embedded_color=True)
    return page


def _without_specks(page):
    """The page without parts far smaller than the largest."""
    from scipy import ndimage

    pixels = np.asarray(page).copy()
    parts, count = ndimage.label(pixels[..., 3] > 0, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    sizes = ndimage.sum_labels(np.ones_like(parts), parts, np.arange(1, count + 1))
    pixels[np.isin(parts, 1 + np.flatnonzero(sizes < SPECK * sizes.max()))] = 0
    return Image.fromarray(pixels)


def _fitted(page):
    """Cropped to what is drawn, the longer side a cell long, in the middle of the cell."""
    cut = page.crop(page.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = CELL / max(cut.size)
    width, height = (max(1, round(side * scale)) for side in cut.size)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(cut.resize((width, height), Image.Resampling.LANCZOS), ((CELL - width) // 2, (CELL - height) // 2))
    return cell


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("font", type=Path, help="NotoColorEmoji.ttf")
    parser.add_argument("--out", type=Path, default=SHEET)
    options = parser.parse_args()
    cut_sheet(options.font).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
