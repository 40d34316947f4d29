"""Scenes of one object, and their renderer: numpy only, any resolution.

A scene names five attributes and carries the numbers that make two pictures of one caption differ: tone,
exact place, radius and tilt vary within what the names allow, so that "vivid", "centred" or "large" are
directions inside the distribution and not outside it.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raft_diffusion.world.shapes import DISTANCES

SHAPES = tuple(DISTANCES)
SIZES = ("small", "large")
POSITIONS = ("center", "left", "right", "top", "bottom")

# Hue in degrees, saturation, value.
COLOURS = {
    "red": (358, 0.84, 0.86),
    "orange": (26, 0.90, 0.96),
    "yellow": (52, 0.82, 0.98),
    "green": (128, 0.68, 0.66),
    "blue": (218, 0.82, 0.92),
    "purple": (275, 0.66, 0.76),
    "pink": (332, 0.42, 1.00),
    "white": (40, 0.02, 0.98),
}
BACKGROUNDS = {
    "navy": (224, 0.66, 0.30),
    "charcoal": (220, 0.10, 0.20),
    "gray": (210, 0.06, 0.58),
    "teal": (184, 0.72, 0.48),
    "brown": (24, 0.52, 0.38),
    "plum": (306, 0.48, 0.36),
    "sand": (40, 0.32, 0.86),
    "sky": (202, 0.32, 0.94),
}
ATTRIBUTES = {
    "size": SIZES,
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "background": tuple(BACKGROUNDS),
    "position": POSITIONS,
}

RADIUS = {"small": (0.27, 0.32), "large": (0.41, 0.47)}
OFFSET = 0.43  # of an object that is not in the center; the frame reaches from -1 to 1
PLACE = {"center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
PLACE_JITTER = 0.07
TILT = np.deg2rad(9)


@dataclass(frozen=True)
class Scene:
    """One object on a background.

    The five names are what a caption says. `x`, `y` and `radius` are in half frames, from -1 to 1, y downwards;
    `tilt` in radians; `rgb` and `background_rgb` in 0..1; `falloff` is the strength of the background's gradient.
    """

    size: str
    colour: str
    shape: str
    background: str
    position: str
    x: float
    y: float
    radius: float
    tilt: float
    rgb: tuple[float, float, float]
    background_rgb: tuple[float, float, float]
    falloff: float

    def attributes(self) -> dict[str, str]:
        """The five names."""
        return {name: getattr(self, name) for name in ATTRIBUTES}


def draw_scene(rng: np.random.Generator, names: dict[str, str]) -> Scene:
    """A scene with the given names; names that are missing and everything unnamed are drawn."""
    full = {key: names.get(key) or str(rng.choice(values)) for key, values in ATTRIBUTES.items()}
    jitter = rng.uniform(-PLACE_JITTER, PLACE_JITTER, 2)
    dx, dy = PLACE[full["position"]]
    return Scene(
        **full,
        x=float(OFFSET * dx + jitter[0]),
        y=float(OFFSET * dy + jitter[1]),
        radius=float(rng.uniform(*RADIUS[full["size"]])),
        tilt=float(rng.uniform(-TILT, TILT)),
        rgb=_tone(rng, COLOURS[full["colour"]], hue=5.0),
        background_rgb=_tone(rng, BACKGROUNDS[full["background"]], hue=4.0),
        falloff=float(rng.uniform(0.4, 1.0)),
    )


def _tone(rng, hsv, hue):
    """A tone of a named colour: hue ± `hue` degrees, saturation -22..+12 %, value -12..+8 %."""
    h = (hsv[0] + rng.uniform(-hue, hue)) / 360 % 1
    s = min(hsv[1] * rng.uniform(0.78, 1.12), 1.0)
    v = min(hsv[2] * rng.uniform(0.88, 1.08), 1.0)
    return colorsys.hsv_to_rgb(h, s, v)


def render(scenes: Sequence[Scene], resolution: int, *, with_object: bool = True) -> np.ndarray:
    """Pictures of scenes.

    Args:
        scenes: N scenes.
        resolution: side in pixels.
        with_object: False draws the background alone.

    Returns:
        [N, resolution, resolution, 3] uint8.
    """
    pictures = np.empty((len(scenes), resolution, resolution, 3), np.uint8)
    chunk = max(1, (1 << 20) // resolution**2)
    for shape in SHAPES:
        rows = [row for row, scene in enumerate(scenes) if scene.shape == shape]
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            pictures[part] = _render_shape([scenes[row] for row in part], resolution, with_object)
    return pictures


def _render_shape(scenes, resolution, with_object):
    """Pictures [N, R, R, 3] uint8 of scenes that share one shape."""
    x, y, radius, tilt, falloff = (
        np.array([getattr(scene, name) for scene in scenes], np.float32)[:, None, None]
        for name in ("x", "y", "radius", "tilt", "falloff")
    )
    rgb = np.array([scene.rgb for scene in scenes], np.float32)[:, None, None]
    axis = (np.arange(resolution, dtype=np.float32) + 0.5) / resolution * 2 - 1
    column, row = axis[None, None, :], axis[None, :, None]
    distance_of = DISTANCES[scenes[0].shape]

    def distance(dx, dy):
        """Distance in half frames to the outline moved by (dx, dy), [N, R, R]."""
        u, v = (column - x - dx) / radius, (row - y - dy) / radius
        cos, sin = np.cos(tilt), np.sin(tilt)
        return distance_of(cos * u + sin * v, cos * v - sin * u) * radius

    picture = _background(scenes, row, column, falloff)
    if not with_object:
        return _bytes(picture)
    shade = 0.40 / (1 + np.exp(distance(0.03, 0.07) / 0.035))
    picture = picture * (1 - shade[..., None])
    outline = distance(0, 0)
    # Lit from above, a little darker towards the lower rim: at 32² as at 64².
    light = 1.05 - 0.14 * ((row - y) / radius) - 0.16 * np.exp(np.minimum(outline, 0) / 0.05) * ((row - y) / radius > -0.1)
    body = np.clip(rgb * np.clip(light, 0.6, 1.18)[..., None], 0, 1)
    cover = np.clip(0.5 - outline * resolution / 2, 0, 1)[..., None]
    picture = picture * (1 - cover) + body * cover
    return _bytes(picture)


def _bytes(picture):
    """0..1 to uint8."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _background(scenes, row, column, falloff):
    """A vertical gradient with a vignette, [N, R, R, 3]."""
    rgb = np.array([scene.background_rgb for scene in scenes], np.float32)[:, None, None]
    gradient = 1 - 0.16 * falloff * row
    vignette = 1 - 0.14 * falloff * np.clip(row**2 + column**2 - 0.35, 0, None)
    return np.clip(rgb * (gradient * vignette)[..., None], 0, 1)
