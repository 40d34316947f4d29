"""Ways in which a picture goes wrong, each from barely visible to beyond recognition.

A corruption takes a `Canvas` and a severity in 0..1 and returns the picture [R, R, 3] float. Lengths are in
fractions of the frame, so that 64² and 32² are damaged alike. They mimic what a diffusion model does outside the resolution it
was trained at: smeared, cut, doubled, melted, faded or missing objects, ragged outlines, bled colours.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from raft_diffusion.world.scenes import Scene, draw_scene, render


@dataclass(frozen=True)
class Canvas:
    """A scene, drawn.

    `picture` and `empty` (the background alone) are [R, R, 3] in 0..1; `cover` [R, R] is 1 on the object and 0 off it.
    """

    scene: Scene
    picture: np.ndarray
    empty: np.ndarray
    cover: np.ndarray
    rng: np.random.Generator

    @property
    def side(self) -> int:
        """Pixels."""
        return len(self.picture)


def canvases(scenes, resolution: int, rng: np.random.Generator) -> list[Canvas]:
    """Scenes drawn with and without their objects."""
    pictures = render(scenes, resolution).astype(np.float32) / 255
    empties = render(scenes, resolution, with_object=False).astype(np.float32) / 255
    covers = np.clip(np.abs(pictures - empties).max(-1) * 8 - 1, 0, 1)
    return [Canvas(*parts, rng) for parts in zip(scenes, pictures, empties, covers, strict=True)]


def _blurred(picture, sigma):
    """Gaussian blur of each channel; `sigma` in pixels."""
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0)[: picture.ndim], mode="nearest")


def _field(rng, side, length):
    """A smooth random field [side, side] of unit deviation; `length` in fractions of the frame."""
    field = ndimage.gaussian_filter(rng.standard_normal((side, side)), length * side, mode="reflect")
    return ((field - field.mean()) / (field.std() + 1e-6)).astype(np.float32)


def _warped(picture, dx, dy):
    """The picture sampled at (x + dx, y + dy), displacements in pixels."""
    rows, columns = np.mgrid[: len(picture), : len(picture)].astype(np.float32)
    layers = np.moveaxis(np.atleast_3d(picture), -1, 0)
    moved = [ndimage.map_coordinates(layer, [rows + dy, columns + dx], order=1, mode="nearest") for layer in layers]
    return np.stack(moved, -1).reshape(picture.shape)


def _mixed(a, b, share):
    """`b` where share [R, R] is 1, `a` where it is 0."""
    return a * (1 - share[..., None]) + b * share[..., None]


def blurry(canvas, severity):
    """Out of focus."""
    return _blurred(canvas.picture, (0.012 + 0.065 * severity) * canvas.side)


def smeared(canvas, severity):
    """Dragged in one direction."""
    angle, length = canvas.rng.uniform(0, np.pi), (0.06 + 0.5 * severity) * canvas.side
    steps = np.linspace(-0.5, 0.5, 13)
    drag = [_warped(canvas.picture, length * t * np.cos(angle), length * t * np.sin(angle)) for t in steps]
    return np.mean(drag, 0)


def noisy(canvas, severity):
    """Grain, fine or coarse, coloured."""
    length = canvas.rng.choice([0.0, 0.012, 0.025]) * canvas.side
    grain = canvas.rng.standard_normal(canvas.picture.shape).astype(np.float32)
    grain = _blurred(grain, length) if length else grain
    return canvas.picture + grain / grain.std() * (0.035 + 0.25 * severity)


def cut(canvas, severity):
    """A straight cut takes a part of the object away."""
    angle = canvas.rng.uniform(0, 2 * np.pi)
    axis = (np.arange(canvas.side, dtype=np.float32) + 0.5) / canvas.side * 2 - 1
    along = (axis[None] - canvas.scene.x) * np.cos(angle) + (axis[:, None] - canvas.scene.y) * np.sin(angle)
    edge = canvas.scene.radius * (0.55 - 1.0 * severity)
    return _mixed(canvas.picture, canvas.empty, np.clip((along - edge) * canvas.side / 3 + 0.5, 0, 1))


def eaten(canvas, severity):
    """Holes and bays in the object."""
    field = _field(canvas.rng, canvas.side, canvas.rng.uniform(0.03, 0.08))
    level = np.quantile(field[canvas.cover > 0.5], 1 - (0.15 + 0.6 * severity)) if (canvas.cover > 0.5).any() else 0
    return _mixed(canvas.picture, canvas.empty, np.clip((field - level) * 3 + 0.5, 0, 1))


def ragged(canvas, severity):
    """The outline wobbles at a short scale."""
    length = canvas.rng.uniform(0.025, 0.05)
    amount = (0.012 + 0.055 * severity) * canvas.side
    return _warped(canvas.picture, *(amount * _field(canvas.rng, canvas.side, length) for _ in range(2)))


def melted(canvas, severity):
    """The object loses its form: a warp at the object's own scale, a little soft."""
    length = canvas.rng.uniform(0.06, 0.12)
    amount = (0.03 + 0.13 * severity) * canvas.side
    moved = _warped(canvas.picture, *(amount * _field(canvas.rng, canvas.side, length) for _ in range(2)))
    return _blurred(moved, canvas.rng.uniform(0.0, 0.02) * canvas.side)


def muddled(canvas, severity):
    """Other colours spread over the object and around it."""
    tint = render([draw_scene(canvas.rng, {}), draw_scene(canvas.rng, {})], canvas.side).astype(np.float32) / 255
    field = _field(canvas.rng, canvas.side, canvas.rng.uniform(0.04, 0.12))
    near = np.clip(_blurred(canvas.cover, 0.06 * canvas.side) * 3, 0, 1)
    other = np.broadcast_to(np.array(draw_scene(canvas.rng, {}).rgb, np.float32), canvas.picture.shape)
    source = tint[0] if canvas.rng.random() < 0.4 else other
    share = np.clip((field + 1.6 * severity - 0.9) * 1.5, 0, 1) * near
    return _mixed(canvas.picture, source, share * (0.5 + 0.5 * severity))


def bled(canvas, severity):
    """The object's colour runs out over the background, unevenly."""
    spread = _blurred(canvas.cover, (0.04 + 0.10 * severity) * canvas.side)
    spread = np.clip(spread * (1.0 + 1.2 * severity) * (1 + 0.5 * _field(canvas.rng, canvas.side, 0.06)), 0, 1)
    colour = np.broadcast_to(np.array(canvas.scene.rgb, np.float32), canvas.picture.shape)
    return _mixed(canvas.picture, colour, np.maximum(spread * (0.35 + 0.6 * severity), 0))


def doubled(canvas, severity):
    """One or two more copies, or parts of them, beside or over the object."""
    picture = canvas.picture
    for _ in range(1 + int(canvas.rng.random() < severity)):
        twin = replace(
            canvas.scene,
            x=float(canvas.rng.uniform(-0.7, 0.7)),
            y=float(canvas.rng.uniform(-0.7, 0.7)),
            radius=float(canvas.scene.radius * (0.45 + 0.6 * severity * canvas.rng.random() + 0.1)),
            shape=canvas.scene.shape if canvas.rng.random() < 0.5 else draw_scene(canvas.rng, {}).shape,
        )
        other = canvases([twin], canvas.side, canvas.rng)[0]
        piece = other.cover * (np.clip(_field(canvas.rng, canvas.side, 0.1) * 4 + 4 * severity, 0, 1))
        picture = _mixed(picture, other.picture, piece)
    return picture


def faded(canvas, severity):
    """The object is a ghost, evenly or in parts."""
    field = np.clip(0.5 + 0.5 * _field(canvas.rng, canvas.side, 0.1), 0, 1) if canvas.rng.random() < 0.5 else 0.0
    share = np.clip(0.35 + 0.65 * severity + 0.4 * (field - 0.5), 0, 1) if np.ndim(field) else 0.3 + 0.68 * severity
    return _mixed(canvas.picture, canvas.empty, np.broadcast_to(share, canvas.cover.shape))


def stained(canvas, severity):
    """Blotches on the background."""
    colour = np.broadcast_to(np.array(draw_scene(canvas.rng, {}).rgb, np.float32), canvas.picture.shape)
    own = np.broadcast_to(np.array(canvas.scene.rgb, np.float32), canvas.picture.shape)
    field = _field(canvas.rng, canvas.side, canvas.rng.uniform(0.03, 0.10))
    share = np.clip((field - 1.7 + 1.2 * severity) * 2, 0, 1) * (0.4 + 0.6 * severity)
    return _mixed(canvas.picture, own if canvas.rng.random() < 0.5 else colour, share)


def glaring(canvas, severity):
    """Contrast and saturation blown beyond what scenes have."""
    gray = canvas.picture.mean(-1, keepdims=True)
    vivid = gray + (canvas.picture - gray) * (1.5 + 2.5 * severity)
    return 0.45 + (vivid - 0.45) * (1.25 + 1.5 * severity)


def messy(canvas, severity):
    """A crumpled blob: the outline torn at a short scale, light and dark patches within, all a little soft."""
    warp = (_field(canvas.rng, canvas.side, canvas.rng.uniform(0.03, 0.07)) for _ in range(2))
    moved = _warped(canvas.picture, *((0.015 + 0.06 * severity) * canvas.side * field for field in warp))
    near = np.clip(_blurred(canvas.cover, 0.05 * canvas.side) * 2.5, 0, 1)[..., None]
    patches = np.stack([_field(canvas.rng, canvas.side, 0.03) for _ in range(3)], -1)
    patches = 0.5 * patches + 0.5 * patches.mean(-1, keepdims=True)
    return _blurred(moved + near * patches * (0.03 + 0.14 * severity), (0.006 + 0.012 * severity) * canvas.side)


def broken(canvas, severity):
    """A blob in the object's place: the outline loses its corners and bulges."""
    inside = _blurred(canvas.cover, (0.02 + 0.045 * severity) * canvas.side)
    bulge = (0.10 + 0.16 * severity) * _field(canvas.rng, canvas.side, canvas.rng.uniform(0.05, 0.09))
    cover = np.clip((inside + bulge * np.clip(4 * inside, 0, 1) - 0.45) * canvas.rng.uniform(2, 8) + 0.5, 0, 1)
    weight = _blurred(canvas.cover, 0.05 * canvas.side)[..., None] + 1e-3
    body = _blurred(canvas.picture * canvas.cover[..., None], 0.05 * canvas.side) / weight
    return _mixed(canvas.empty, body, cover * np.clip(weight[..., 0] * 20, 0, 1))


def empty(canvas, severity):
    """The background alone, or a stub of an object on it."""
    del severity
    return canvas.empty


def blank(canvas, severity):
    """One flat colour, or white, or black."""
    del severity
    flat = [np.zeros(3), np.ones(3), canvas.rng.random(3), canvas.empty.mean((0, 1)), np.array(canvas.scene.rgb)]
    return np.broadcast_to(flat[canvas.rng.integers(len(flat))], canvas.picture.shape)


Corruption = Callable[[Canvas, float], np.ndarray]
CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        blurry, smeared, noisy, cut, eaten, ragged, melted, muddled, bled, doubled, faded, stained, glaring, messy, broken,
        empty, blank,
    )
}  # fmt: skip
ALWAYS_SEVERE = ("empty", "blank")
COMMON = {"broken": 5.0, "messy": 2.0, "melted": 2.0}  # what a denoiser out of its depth does comes up more often

# How bad the mildest form of each corruption already looks, in 0..1.
ONSET = {
    "blurry": 0.1, "smeared": 0.25, "noisy": 0.3, "cut": 0.15, "eaten": 0.3, "ragged": 0.1, "melted": 0.3, "muddled": 0.1,
    "bled": 0.15, "doubled": 0.4, "faded": 0.3, "stained": 0.3, "glaring": 0.45, "messy": 0.25, "broken": 0.45,
    "empty": 1.0, "blank": 1.0,
}  # fmt: skip


def badness(faults: Iterable[tuple[str, float]]) -> float:
    """How bad a picture with these faults looks, 0 (clean) to 1 (ruined); several faults add up towards 1."""
    intact = 1.0
    for kind, severity in faults:
        intact *= 1 - (ONSET[kind] + (1 - ONSET[kind]) * severity)
    return 1 - intact


def corrupt(canvas: Canvas, kind: str, severity: float) -> np.ndarray:
    """The damaged picture, [R, R, 3] uint8."""
    picture = np.clip(CORRUPTIONS[kind](canvas, severity), 0, 1)
    return (picture * 255 + 0.5).astype(np.uint8)


def draw_damage(rng: np.random.Generator) -> list[tuple[str, float]]:
    """What befalls one picture: one corruption, or two at once in a quarter of the cases, as (kind, severity)."""
    weights = np.array([COMMON.get(kind, 1.0) for kind in CORRUPTIONS])
    count = 1 + int(rng.random() < 0.25)
    kinds = [str(kind) for kind in rng.choice(list(CORRUPTIONS), size=count, replace=False, p=weights / weights.sum())]
    return [(kind, 1.0 if kind in ALWAYS_SEVERE else float(rng.random())) for kind in kinds]


def damage(canvas: Canvas, faults: list[tuple[str, float]]) -> np.ndarray:
    """All the faults, one after the other, [R, R, 3] uint8."""
    for kind, severity in faults:
        picture = corrupt(canvas, kind, severity)
        canvas = replace(canvas, picture=picture.astype(np.float32) / 255)
    return (canvas.picture * 255 + 0.5).astype(np.uint8)
