"""Rewards that measure pixels or read text, against values derived by hand; and pictures of every mode a file can have."""

from __future__ import annotations

import importlib.util
import io
import re
import types

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from reward_samples import picture, samples_of

from raft_core.errors import ConfigError, MissingDependency, RewardError
from raft_core.rewards.scoring import score
from raft_diffusion.rewards import Colorfulness, Contrast, JpegIncompressibility, Ocr, Sharpness
from raft_diffusion.rewards.ocr import legibility, quoted
from raft_diffusion.rewards.pictures import rgb
from raft_diffusion.rewards.pixels import colorfulness, contrast, sharpness


def image_of(pixels) -> Image.Image:
    return Image.fromarray(np.asarray(pixels, dtype=np.uint8))


# --- colourfulness, sharpness, contrast


def test_colorfulness_by_hand():
    assert colorfulness(Image.new("RGB", (4, 4), (90, 90, 90))) == 0
    # Pure red: R − G = 255, (R + G)/2 − B = 127.5, no spread.
    assert colorfulness(Image.new("RGB", (4, 4), (255, 0, 0))) == pytest.approx(0.3 * np.hypot(255, 127.5))
    # Red beside green: R − G = ±255 with mean 0 and deviation 255; yellow-blue 127.5 everywhere.
    halves = image_of([[[255, 0, 0], [0, 255, 0]]])
    assert colorfulness(halves) == pytest.approx(255 + 0.3 * 127.5)


def test_sharpness_by_hand():
    assert sharpness(Image.new("RGB", (5, 5), (200, 10, 30))) == pytest.approx(0)
    dot = np.zeros((5, 5, 3))
    dot[2, 2] = 100
    # The Laplacian is −400 at the dot and 100 at its four neighbours: mean 0, variance (400² + 4·100²)/25.
    assert sharpness(image_of(dot)) == pytest.approx((400**2 + 4 * 100**2) / 25)
    edge = np.zeros((1, 4, 3))
    edge[0, 3] = 100
    # Mirrored at the border's pixels: the neighbours of the last are both 0, so −200 there, 100 beside it.
    assert sharpness(image_of(edge)) == pytest.approx((200**2 + 100**2) / 4 - 25**2)
    assert sharpness(Image.new("RGB", (1, 1), "red")) == pytest.approx(0)


def test_contrast_by_hand():
    assert contrast(Image.new("RGB", (4, 4), (9, 200, 30))) == pytest.approx(0)
    assert contrast(image_of([[[0] * 3, [255] * 3]])) == pytest.approx(0.5)
    assert contrast(image_of([[[0] * 3, [0, 255, 0]]])) == pytest.approx(0.587 / 2)


def test_blur_lowers_sharpness_grey_lowers_colour_fading_lowers_contrast():
    from PIL import ImageEnhance, ImageFilter

    noise = picture(0)
    changed = {
        Sharpness(): noise.filter(ImageFilter.GaussianBlur(2)),
        Colorfulness(): ImageEnhance.Color(noise).enhance(0.3),
        Contrast(): ImageEnhance.Contrast(noise).enhance(0.3),
    }
    for reward, worse in changed.items():
        before, after = reward(samples_of(["", ""], [noise, worse]))
        assert before > 1.5 * after


@pytest.mark.parametrize("make", [Colorfulness, Sharpness, Contrast, JpegIncompressibility])
def test_pixel_rewards_name_their_columns_and_take_no_samples(make):
    assert make(name="other").info.name == "other"
    assert make().info.scale
    assert not make().info.gpu
    assert make()([]).shape == (0,)


# --- pictures of every mode


def ramp16(dtype) -> np.ndarray:
    return np.array([[0, 257, 128 * 257, 65535]], dtype=dtype)


GREYS = [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def png16() -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(ramp16(np.uint16)).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(ramp16(np.uint16)),
        Image.frombytes("I;16B", (4, 1), ramp16(">u2").tobytes()),
        Image.fromarray(ramp16(np.int32)),
        png16(),
    ],
    ids=["I;16", "I;16B", "I", "png"],
)
def test_16_bits_are_rounded_to_8(image):
    np.testing.assert_array_equal(np.asarray(rgb(image)), GREYS)


def palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    if transparent:
        image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        (image_of([[[255, 0, 0, 255], [0, 0, 255, 0]]]), [[255, 0, 0], [255, 255, 255]]),
        (image_of([[[0, 0, 0, 51], [0, 0, 0, 255]]]), [[204, 204, 204], [0, 0, 0]]),
        (palette(transparent=False), [[255, 0, 0], [0, 0, 255]]),
        (palette(transparent=True), [[255, 0, 0], [255, 255, 255]]),
        (image_of([[10, 200]]), [[10] * 3, [200] * 3]),
        (Image.merge("LA", [image_of([[10, 200]]), image_of([[255, 0]])]), [[10] * 3, [255] * 3]),
        (image_of([[0, 255]]).convert("1"), [[0] * 3, [255] * 3]),
        (image_of([[[255, 0, 0], [0, 0, 255]]]).convert("RGBa"), [[255, 0, 0], [0, 0, 255]]),
        (Image.new("CMYK", (2, 1), (0, 255, 255, 0)), [[255, 0, 0]] * 2),
    ],
    ids=["RGBA", "translucent", "P", "P with transparency", "L", "LA", "1", "RGBa", "CMYK"],
)
def test_every_mode_becomes_rgb_on_white(image, pixels):
    np.testing.assert_array_equal(np.asarray(rgb(image)), [pixels])


def test_rgb_pictures_stay_the_objects_that_they_are_and_others_are_converted_once():
    plain, clear = picture(0), Image.new("RGBA", (4, 4))
    assert rgb(plain) is plain
    assert rgb(clear) is rgb(clear)


def truncated() -> Image.Image:
    buffer = io.BytesIO()
    picture(0).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:400]))


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (None, "a sample holds NoneType: render the samples first"),
        (np.zeros((4, 4, 3)), "a sample holds ndarray"),
        (Image.new("RGB", (0, 7)), "0×7 pixels has nothing to score"),
        (truncated(), "cannot be read: .*truncated"),
        (Image.new("F", (2, 2)), "floating-point pixels has no known range"),
        (Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "0 to 70000, but greyscale of 16 bits ends at 65535"),
        (Image.new("La", (2, 2)), "mode 'La' cannot be shown as RGB"),
    ],
    ids=["none", "array", "empty", "truncated", "float", "32 bits", "La"],
)
def test_what_is_no_usable_picture_is_unscored_and_the_others_are_not(output, says):
    with pytest.raises(RewardError, match=says):
        rgb(output)
    columns, failures = score(Contrast(), samples_of(["a", "b", "c"], [picture(0), output, picture(1)]))
    np.testing.assert_array_equal(np.isnan(columns["contrast"]), [False, True, False])
    assert re.search(says, failures["contrast"].first_error)
    columns, failures = score(Contrast(), samples_of(["a"], [output]))
    assert np.isnan(columns["contrast"]).all()
    assert failures["contrast"].count == 1


# --- text in pictures


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ('a sign that says "Open now", photo', "Open now"),
        ('a mug with "one" and "two"', "one"),
        ("a card with “Ça va?”", "Ça va?"),
        ("ein Schild „Guten Tag“", "Guten Tag"),
        ("un mur «bonjour»", "bonjour"),
        ("it's a shop called 'Joe's place' on the dogs' street", "Joe's place"),
        ("a door, ‘it’s open’ on it", "it’s open"),
        ("it's the dogs' house", None),
        ('empty "" and " " quotes', None),
        ("no quotes", None),
    ],
)
def test_the_first_quoted_text_is_the_target(prompt, target):
    assert quoted(prompt) == target


@pytest.mark.parametrize(
    ("read", "value"),
    [
        ("Open now", 1),
        ("open NOW", 1),
        ("opennow", 1),
        ("open mow", 1 - 1 / 7),
        ("pen now!", 1 - 2 / 7),
        ("", 0),
        ("something else altogether", 0),
        ("open now open now", 0),  # more than the text is not the text
    ],
)
def test_legibility_is_one_minus_the_edit_distance(read, value):
    assert legibility(read, "Open now") == pytest.approx(value)


class Reader:
    """Stands for the engine: reads what it is told, and remembers what it saw."""

    def __init__(self, *lines):
        self.lines = lines
        self.seen = []

    def __call__(self, pixels):
        self.seen.append(pixels)
        texts, scores = zip(*self.lines, strict=True) if self.lines else (None, None)
        return types.SimpleNamespace(txts=texts, scores=scores)


@pytest.fixture
def reading(monkeypatch):
    """lines → (the reward, its engine), whatever is installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)

    def make(*lines, **arguments):
        engine = Reader(*lines)
        monkeypatch.setattr("raft_diffusion.rewards.ocr._engine", lambda: engine)
        return Ocr(**arguments), engine

    return make


def test_ocr_scores_what_the_engine_reads_with_confidence(reading):
    reward, engine = reading(("Open", 0.9), ("noise", 0.3), ("now", 0.8))
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    columns, failures = score(reward, samples_of(['"open now"', "nothing quoted", '"open"'], [red] * 3))
    scores = columns["ocr"]
    assert "no text in quotation marks" in failures["ocr"].first_error
    assert scores[0] == 1
    assert np.isnan(scores[1])
    assert scores[2] == pytest.approx(1 - 3 / 4)
    np.testing.assert_array_equal(engine.seen[0][0, 0], [0, 0, 255])  # blue first
    assert len(engine.seen) == 2  # nothing is read for a prompt without a target


def test_ocr_of_a_picture_without_text_is_0(reading):
    reward, _ = reading()
    assert reward(samples_of(['"stop"'])) == [0]
    doubtful, _ = reading(("stop", 0.6), confidence=0.7)
    assert doubtful(samples_of(['"stop"'])) == [0]
    with pytest.raises(ConfigError, match="confidence is 2, but must be from 0 to 1"):
        Ocr(2)


def test_without_the_engine_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    [mistake] = Ocr().check()
    assert "pip install 'raft-align[ocr]'" in mistake
    with pytest.raises(MissingDependency, match="rapidocr"):
        Ocr().load()


@pytest.mark.slow
@pytest.mark.skipif(bool(Ocr().check()), reason="the extra 'ocr' is not installed")
def test_the_engine_reads_a_sign():
    sign = Image.new("RGB", (240, 240), "white")
    ImageDraw.Draw(sign).text((15, 100), "HELLO WORLD", fill="black", font=ImageFont.load_default(30))
    reward = Ocr()
    assert reward.check() == []
    reward.load()
    right, wrong = reward(samples_of(['a sign "Hello World"', 'a sign "Goodbye"'], [sign, sign]))
    assert right > 0.9
    assert wrong < 0.5
