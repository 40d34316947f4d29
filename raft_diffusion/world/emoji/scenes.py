"""Scenes of one object on a plain background, and their renderer for any resolution.

A scene names five attributes and carries the numbers that make two pictures of one caption differ: exact place, exact size and
tone of the background vary within what the names allow, so that "centred", "large" or "bright" are directions inside the
distribution and not outside it. An object near the edge may be cut off by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raft_diffusion.world.emoji.sprites import CELL, MARGIN, OBJECTS, TINTS, shadow, sprite, tints_of

NATURAL = "natural"
SIZES = ("small", "large")
POSITIONS = ("center", "left", "right", "top", "bottom")
BACKGROUNDS = {
    "white": (250, 250, 247),
    "pink": (255, 184, 209),
    "mint": (178, 238, 207),
    "beige": (240, 218, 172),
    "sky blue": (152, 206, 252),
    "navy": (28, 38, 92),
    "purple": (104, 54, 120),
    "charcoal": (50, 50, 58),
}
BRIGHT = ("white", "pink", "mint", "beige", "sky blue")
ATTRIBUTES = {
    "size": SIZES,
    "tint": (NATURAL, *TINTS),
    "object": OBJECTS,
    "background": tuple(BACKGROUNDS),
    "position": POSITIONS,
}
TINTED_SHARE = 0.25
RADIUS = {"small": (0.31, 0.37), "large": (0.50, 0.59)}  # half the sprite's longer side; the frame reaches from -1 to 1
OFFSET = {"small": 0.50, "large": 0.44}  # of an object that is not in the center
PLACE = {"center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
JITTER = 0.07
SHADE = 0.42  # how dark the shadow is


@dataclass(frozen=True)
class Scene:
    """One object on a background.

    The five names are what a caption says; `tint` is "natural" for an object in its own colours. `x`, `y` and `radius` are in
    half frames, from -1 to 1, y downwards; `tone` multiplies the background; `falloff` is the strength of its gradient.
    """

    size: str
    tint: str
    object: str
    background: str
    position: str
    x: float
    y: float
    radius: float
    tone: float
    falloff: float

    def attributes(self) -> dict[str, str]:
        """The five names."""
        return {name: getattr(self, name) for name in ATTRIBUTES}

    @property
    def overhang(self) -> float:
        """How far the sprite's square reaches over the frame's edge, in half frames; 0 if it does not."""
        return max(0.0, max(abs(self.x), abs(self.y)) + self.radius - 1)


def draw_names(rng: np.random.Generator) -> dict[str, str]:
    """Five names, uniform but for the tint, which most objects do without."""
    kind = str(rng.choice(OBJECTS))
    tint = str(rng.choice(tints_of(kind))) if rng.random() < TINTED_SHARE else NATURAL
    others = {key: str(rng.choice(ATTRIBUTES[key])) for key in ("size", "background", "position")}
    return {key: ({"tint": tint, "object": kind} | others)[key] for key in ATTRIBUTES}


def draw_scene(rng: np.random.Generator, names: dict[str, str]) -> Scene:
    """A scene with the given names; names that are missing and everything unnamed are drawn."""
    full = draw_names(rng) | ({"tint": NATURAL} if "object" in names else {}) | names
    dx, dy = PLACE[full["position"]]
    offset = OFFSET[full["size"]]
    jitter = rng.uniform(-JITTER, JITTER, 2)
    return Scene(
        **full,
        x=float(offset * dx + jitter[0]),
        y=float(offset * dy + jitter[1]),
        radius=float(rng.uniform(*RADIUS[full["size"]])),
        tone=float(rng.uniform(0.95, 1.0)),
        falloff=float(rng.uniform(0.3, 1.0)),
    )


def render(scenes: Sequence[Scene], resolution: int, *, with_object: bool = True) -> np.ndarray:
    """Pictures of scenes.

    Args:
        scenes: N scenes.
        resolution: side in pixels.
        with_object: False draws the background alone.

    Returns:
        [N, resolution, resolution, 3] uint8.
    """
    pictures = _backgrounds(scenes, resolution)
    if with_object:
        for picture, scene in zip(pictures, scenes, strict=True):
            _draw_object(picture, scene)
    return pictures


def covers(scenes: Sequence[Scene], resolution: int) -> np.ndarray:
    """[N, resolution, resolution] uint8, 255 where the object hides the background."""
    found = np.zeros((len(scenes), resolution, resolution), np.uint8)
    for cover, scene in zip(found, scenes, strict=True):
        at, size, box = _placed(scene, resolution)
        part = np.asarray(_sprite(scene).getchannel("A").resize(size, Image.Resampling.BICUBIC, box))
        cover[at] = part
    return found


def _sprite(scene):
    return sprite(scene.object, None if scene.tint == NATURAL else scene.tint)


def _placed(scene, resolution):
    """Where the framed sprite falls: the slices of the picture, their (width, height), and the frame's part shown there."""
    pixel = scene.radius * resolution / CELL  # of the picture, per pixel of the sheet
    side = (1 + 2 * MARGIN) * CELL
    slices, size, low, high = [], [], [], []
    for centre in (scene.x, scene.y):
        start = (centre + 1) * resolution / 2 - side / 2 * pixel
        first, last = max(0, int(np.ceil(start))), min(resolution, int(np.floor(start + side * pixel)))
        slices.append(slice(first, last))
        size.append(last - first)
        low.append((first - start) / pixel)
        high.append((last - start) / pixel)
    return (slices[1], slices[0]), tuple(size), (low[0], low[1], min(high[0], side), min(high[1], side))


def _draw_object(picture, scene):
    """Shadow, then sprite, into one picture [R, R, 3] uint8."""
    at, size, box = _placed(scene, len(picture))
    under = picture[at].astype(np.float32)
    shade = np.asarray(shadow(scene.object).resize(size, Image.Resampling.BICUBIC, box), np.float32)[..., None]
    drawn = np.asarray(_sprite(scene).resize(size, Image.Resampling.BICUBIC, box), np.float32)
    cover = drawn[..., 3:] / 255
    under *= 1 - SHADE / 255 * shade
    picture[at] = (under * (1 - cover) + drawn[..., :3] * cover + 0.5).astype(np.uint8)


def _backgrounds(scenes, resolution):
    """A vertical gradient, lighter above, [N, R, R, 3] uint8."""
    colour = np.array([BACKGROUNDS[scene.background] for scene in scenes], np.float32)  # [N, 3]
    tone, falloff = (np.array([getattr(scene, key) for scene in scenes], np.float32) for key in ("tone", "falloff"))
    row = (np.arange(resolution, dtype=np.float32) + 0.5) / resolution * 2 - 1
    light = tone[:, None] * (1 - 0.08 * falloff[:, None] * (row + 1))  # [N, R]
    bands = (light[:, :, None, None] * colour[:, None, None, :] + 0.5).clip(0, 255).astype(np.uint8)
    return np.repeat(bands, resolution, axis=2)
