"""Files and lines from visitors: refused in words before anything large is decoded."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from raft_core.errors import DataError, RaftError
from raft_demo.shared.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

#: What is decoded at all: Pillow knows formats that other programs render for it, which an upload must not reach.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def picture(path: Path, limits: Limits) -> Image:
    """An uploaded picture as RGB; of a moving one the first frame.

    Raises:
        DataError: too large, too many pixels, damaged, or no picture of a known format.
    """
    from PIL import Image, UnidentifiedImageError

    from raft_core.preferences.preference import opaque, unreadable

    size = path.stat().st_size
    if size > limits.upload_bytes:
        raise DataError(f"has {size / 2**20:.1f} MB, and at most {limits.upload_bytes / 2**20:.0f} MB are taken")
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size  # no pixel is decoded yet
                if width * height > limits.upload_pixels:
                    most = limits.upload_pixels / 1e6
                    raise DataError(f"has {width}×{height} pixels, and at most {most:g} million are taken: make it smaller")
                image.load()
                return opaque(image)
    except RaftError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"has far more than the {limits.upload_pixels / 1e6:g} million pixels that are taken") from None
    except UnidentifiedImageError:
        raise DataError(f"is no picture of a known format ({', '.join(FORMATS)})" if data else "is empty") from None
    except Exception as error:  # noqa: BLE001 - decoders raise whatever a damaged file makes them trip over
        raise DataError(f"is no readable picture ({unreadable(data, error)})") from None


def lines(text: str | None, what: str, limits: Limits) -> list[str]:
    """The lines of a text box that hold something.

    Raises:
        DataError: too many, or one too long.
    """
    found = [line.strip() for line in (text or "").splitlines() if line.strip()]
    if len(found) > limits.prompts:
        raise DataError(f"{len(found)} {what} are too many: give at most {limits.prompts}")
    if long := [line for line in found if len(line) > limits.prompt_characters]:
        raise DataError(
            f"a line of {len(long[0])} characters is too long ({long[0][:30]}…): give at most {limits.prompt_characters}"
        )
    return found


def one_each(prompts: list[str], count: int, what: str) -> list[str]:
    """[count] prompts: one for all, one for each in order, or none at all ("").

    Raises:
        DataError: another number of them.
    """
    if len(prompts) <= 1:
        return (prompts or [""]) * count
    if len(prompts) != count:
        raise DataError(
            f"there are {len(prompts)} prompts for {count} {what}: give one for all, or one line for each, in order"
        )
    return prompts
