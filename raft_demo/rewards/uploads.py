"""Files and lines from visitors: refused in words before anything large is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raft_core.errors import DataError
from raft_core.media.picture import decode_picture, read_picture_file
from raft_core.reading.files import Unreadable
from raft_demo.shared.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image


def picture(path: Path, limits: Limits) -> Image:
    """An uploaded picture as upright RGB; of a moving one the first frame.

    Raises:
        DataError: too large, too many pixels, damaged, or no picture of a known format. The sentence lacks its subject, which
            the visitor knows by another name.
    """
    size = path.stat().st_size
    if size > limits.upload_bytes:
        raise DataError(f"has {size / 2**20:.1f} MB, and at most {limits.upload_bytes / 2**20:.0f} MB are taken")
    try:
        return decode_picture(read_picture_file(path, limits.upload_bytes), limits.upload_pixels)
    except Unreadable as error:
        raise DataError(f"is no readable picture ({error})") from None


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
