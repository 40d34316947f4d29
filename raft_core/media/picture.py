"""Opening pictures of anybody's making: known formats alone, bounded in pixels, the way up that a viewer shows them, as RGB."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raft_core.errors import DataError
from raft_core.reading.files import LARGEST_PICTURE_FILE, Unreadable, excerpt, read_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

#: What is decoded at all. Pillow knows formats that other programs render for it (EPS reaches Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MOST_PIXELS = 64_000_000  # of one picture


def open_picture(data: bytes, name: str, most: int = MOST_PIXELS) -> Image.Image:
    """Encoded bytes as a picture, as ``decode_picture`` makes it.

    Raises:
        DataError: it cannot be decoded; begins with ``name``.
    """
    try:
        return decode_picture(data, most)
    except Unreadable as error:
        raise DataError(f"{name} is no readable picture ({error})") from None


def read_picture(path: Path, most: int = MOST_PIXELS) -> Image.Image:
    """A file as a picture, as ``decode_picture`` makes it.

    Raises:
        DataError: it cannot be read or decoded; names the file.
    """
    return open_picture(read_picture_file(path), path.name, most)


def read_picture_file(path: Path, most_bytes: int = LARGEST_PICTURE_FILE) -> bytes:
    """The encoded bytes of a picture's file.

    Raises:
        DataError: it cannot be read; names the file.
    """
    try:
        return read_bytes(path, most_bytes)
    except (OSError, Unreadable) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"the picture {excerpt(path, 200)} cannot be read: {why}") from None


def picture_size(data: bytes, most: int = MOST_PIXELS, formats: Sequence[str] = FORMATS) -> tuple[int, int]:
    """(width, height) in pixels by the header alone; nothing is decoded.

    Raises:
        Unreadable: it is no picture of a known format, or it has more than ``most`` pixels.
    """
    with _opened(data, most, formats) as image:
        return image.size


def decode_picture(data: bytes, most: int = MOST_PIXELS, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Encoded bytes as an upright 8-bit RGB picture; of a moving one the first frame.

    Args:
        most: pixels. Nothing is decoded before they are counted.
        formats: in Pillow's names; no other is tried.

    Raises:
        Unreadable: it is no picture of a known format, it is damaged, too large, or ``opaque`` refuses it.
    """
    with _opened(data, most, formats) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd metadata, which no pixel depends on
                image.load()
                return opaque(upright(image))
        except DataError as error:
            raise Unreadable(str(error)) from None
        except Exception as error:  # noqa: BLE001 - decoders raise whatever a damaged file makes them trip over
            raise Unreadable(f"it is damaged: {excerpt(error, 100) or type(error).__name__}") from None


def _opened(data: bytes, most: int, formats: Sequence[str]) -> Image.Image:
    """A picture whose header has been read.

    Raises:
        Unreadable: as ``picture_size``.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise Unreadable("it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decompression bombs, which are refused below, and of odd metadata
            image = Image.open(io.BytesIO(data), formats=list(formats))
    except Image.DecompressionBombError:
        raise Unreadable(f"it has far more than {most / 1e6:g} million pixels; make it smaller") from None
    except UnidentifiedImageError:
        raise Unreadable(f"it is no picture of a known format: {', '.join(formats)}") from None
    except Exception as error:  # noqa: BLE001 - as above
        raise Unreadable(f"it is damaged: {excerpt(error, 100) or type(error).__name__}") from None
    width, height = image.size
    if width * height > most:
        raise Unreadable(f"it has {width}×{height} pixels, more than {most / 1e6:g} million; make it smaller")
    return image


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF data say, as every viewer shows it; cameras and phones store it as the sensor lay."""
    from PIL import ImageOps
    from PIL.ExifTags import Base

    try:
        if image.getexif().get(Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - damaged metadata tell nothing of the orientation, so viewers leave it as it is
        return image


def opaque(image: Image.Image) -> Image.Image:
    """A decoded picture of any mode as 8-bit RGB.

    What is transparent lies on white, as on a page. 16 bits per channel are rounded to 8, palettes and greyscale become
    colours. Plain conversion shows what transparency hides and clips 16 bits to white.

    Raises:
        DataError: floating-point pixels, whose range nobody knows, integers beyond 16 bits, or a mode that is no picture's.
    """
    from PIL import Image

    if image.mode == "F":
        raise DataError("a picture of floating-point pixels has no known range: convert it to 8 bits per channel first")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(
                f"a picture of mode {image.mode!r} holds values from {values.min()} to {values.max()}, but greyscale of 16 "
                "bits ends at 65535: convert it to 8 bits per channel first"
            )
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    except ValueError as error:
        raise DataError(f"a picture of mode {image.mode!r} cannot be shown as RGB: {error}") from error


def to_png(image: Image.Image) -> bytes:
    """A lossless PNG of an RGB picture. Level 1: several times faster than the default for a few per cent more bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def from_png(data: Any) -> Image.Image:
    """The RGB picture of a stored PNG. Run folders travel, so it is opened with the same care as any other.

    Raises:
        Unreadable: it is none.
    """
    if not isinstance(data, bytes):
        raise Unreadable(f"a stored picture is {excerpt(repr(data), 40)}, but must be the bytes of a PNG")
    return decode_picture(data, formats=("PNG",))
