"""Pictures of anybody's making: the way up that a viewer shows them, in known formats, and no larger than memory bears."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from raft_core.errors import DataError
from raft_core.media.files import loaded, read_rows
from raft_core.media.picture import MOST_PIXELS, decode_picture, open_picture, picture_size, read_picture
from raft_core.preferences.preference import Picture
from raft_core.reading.files import Unreadable
from raft_core.rewards.service.messages import received

SCENE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def encoded(image, kind, **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def lying(orientation, kind="PNG"):
    """The scene as a camera stores it that was held so, and as a viewer shows it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(SCENE), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as image:
        return data, np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_pictures_are_upright_wherever_they_are_opened(tmp_path, orientation, kind):
    import base64

    data, shown = lying(orientation, kind)
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "a.txt").write_text("a scene")
    ways = {
        "decoded": decode_picture(data),
        "a file": read_picture(tmp_path / "a.png"),
        "a preference": Picture(data=data).load(),
        "a folder to score": loaded(read_rows(str(tmp_path)))[0][0].output,
        "a request": received({"samples": [{"image": base64.b64encode(data).decode()}]})[0][0].output,
    }
    for way, image in ways.items():
        np.testing.assert_array_equal(np.asarray(image), shown, err_msg=way)
    assert (ways["decoded"].size == (4, 6)) == (orientation in (6, 8))


def test_damaged_metadata_cost_no_picture():
    data = encoded(Image.fromarray(SCENE), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode_picture(data).size == (6, 4)


def png_of(width, height):
    """A PNG that says it is so large, in few bytes."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (png_of(10_000, 10_000), "10000×10000 pixels, more than 64 million"),
        (png_of(2**30, 2**30), "far more than 64 million"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "no picture of a known format"),
        (b"P6 2 2 255 " + bytes(12), "no picture of a known format"),
        (encoded(Image.fromarray(SCENE), "PNG")[:-30], "it is damaged"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "floating-point"),
    ],
)
def test_what_is_not_decoded(data, words):
    with pytest.raises(Unreadable, match=words):
        decode_picture(data)
    with pytest.raises(DataError, match=r"^a\.png is no readable picture"):
        open_picture(data, "a.png")


def test_the_size_is_told_without_decoding():
    assert picture_size(png_of(7_000, 9_000)) == (7_000, 9_000)
    with pytest.raises(Unreadable, match="more than 1 million"):
        picture_size(png_of(2_000, 2_000), most=1_000_000)
    assert MOST_PIXELS == 64_000_000


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name in ("pipe.png", "folder.png", "loop.png", "nowhere.png", "x" * 5000, "a\0b"):
        with pytest.raises(DataError, match="cannot be read"):
            read_picture(tmp_path / name)
    (tmp_path / "lines.jsonl").write_text(json.dumps({"prompt": "p", "image": "pipe.png"}) + '\n{"prompt": "p", "text": "t"}\n')
    samples, mistakes = loaded(read_rows(str(tmp_path / "lines.jsonl")))
    assert len(samples) == 1 and "no regular file" in mistakes[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damage_of_any_kind_is_told_as_such(kind):
    data, draw = encoded(Image.fromarray(SCENE.repeat(8, 0).repeat(8, 1)), kind), random.Random(kind)
    for _ in range(60):
        harmed = bytearray(data[: draw.randrange(len(data) + 1)] if draw.random() < 0.3 else data)
        for _ in range(draw.choice((1, 5, 50))):
            if harmed:
                harmed[draw.randrange(len(harmed))] = draw.randrange(256)
        with contextlib.suppress(Unreadable):
            assert decode_picture(bytes(harmed)).mode == "RGB"
