"""Ways in which a picture of an emoji goes wrong, each from barely visible to beyond recognition.

Most are the shapes' own (`raft_diffusion.world.corrupt`); those that need another object or the object's colour are here.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raft_diffusion.world import corrupt as base
from raft_diffusion.world.corrupt import Canvas, Corruption
from raft_diffusion.world.emoji.scenes import Scene, covers, draw_scene, render


def canvases(scenes: Sequence[Scene], resolution: int, rng: np.random.Generator) -> list[Canvas]:
    """Scenes drawn with and without their objects."""
    pictures = render(scenes, resolution).astype(np.float32) / 255
    empties = render(scenes, resolution, with_object=False).astype(np.float32) / 255
    hidden = covers(scenes, resolution).astype(np.float32) / 255
    rows = zip(scenes, pictures, empties, hidden, strict=True)
    # This world's scenes have what a canvas asks of one.
    return [Canvas(scene, picture, empty, cover, rng) for scene, picture, empty, cover in rows]  # type: ignore[arg-type]


def _stranger(canvas, **names):
    """Another scene's canvas of the same size."""
    scene = draw_scene(canvas.rng, {key: value for key, value in names.items() if value})
    return scene, canvases([scene], canvas.side, canvas.rng)[0]


def _colour(canvas):
    """The object's mean colour, [3]."""
    weight = canvas.cover[..., None] + 1e-6
    return (canvas.picture * weight).sum((0, 1)) / weight.sum((0, 1))


def _flat(canvas, colour):
    return np.broadcast_to(np.asarray(colour, np.float32), canvas.picture.shape)


def mixed(canvas, severity):
    """Another object grows into this one, at the same place: a chimera."""
    scene = replace(draw_scene(canvas.rng, {}), x=canvas.scene.x, y=canvas.scene.y, radius=canvas.scene.radius)
    other = canvases([scene], canvas.side, canvas.rng)[0]
    field = base._field(canvas.rng, canvas.side, canvas.rng.uniform(0.06, 0.14))
    share = np.clip((field + 1.3 * severity - 0.75) * 3 + 0.5, 0, 1) * np.maximum(other.cover, canvas.cover)
    return base._mixed(canvas.picture, base._mixed(canvas.empty, other.picture, other.cover), share)


def muddled(canvas, severity):
    """Other colours spread over the object and around it."""
    field = base._field(canvas.rng, canvas.side, canvas.rng.uniform(0.04, 0.12))
    near = np.clip(base._blurred(canvas.cover, 0.06 * canvas.side) * 3, 0, 1)
    source = _flat(canvas, canvas.rng.random(3)) if canvas.rng.random() < 0.6 else _stranger(canvas)[1].picture
    share = np.clip((field + 1.6 * severity - 0.9) * 1.5, 0, 1) * near
    return base._mixed(canvas.picture, source, share * (0.5 + 0.5 * severity))


def bled(canvas, severity):
    """The object's colour runs out over the background, unevenly."""
    spread = base._blurred(canvas.cover, (0.04 + 0.10 * severity) * canvas.side)
    spread = np.clip(spread * (1.0 + 1.2 * severity) * (1 + 0.5 * base._field(canvas.rng, canvas.side, 0.06)), 0, 1)
    return base._mixed(canvas.picture, _flat(canvas, _colour(canvas)), spread * (0.35 + 0.6 * severity))


def doubled(canvas, severity):
    """One or two more objects, or parts of them, beside this one or over it."""
    picture = canvas.picture
    for _ in range(1 + int(canvas.rng.random() < severity)):
        kind = canvas.scene.object if canvas.rng.random() < 0.5 else draw_scene(canvas.rng, {}).object
        x, y = (float(part) for part in canvas.rng.uniform(-0.7, 0.7, 2))
        radius = canvas.scene.radius * (0.55 + 0.6 * severity * canvas.rng.random())
        twin = replace(canvas.scene, object=kind, x=x, y=y, radius=float(radius))
        other = canvases([twin], canvas.side, canvas.rng)[0]
        piece = other.cover * np.clip(base._field(canvas.rng, canvas.side, 0.1) * 4 + 4 * severity, 0, 1)
        picture = base._mixed(picture, other.picture, piece)
    return picture


def stained(canvas, severity):
    """Blotches on the background."""
    colour = _colour(canvas) if canvas.rng.random() < 0.5 else canvas.rng.random(3)
    field = base._field(canvas.rng, canvas.side, canvas.rng.uniform(0.03, 0.10))
    share = np.clip((field - 1.7 + 1.2 * severity) * 2, 0, 1) * (0.4 + 0.6 * severity)
    return base._mixed(canvas.picture, _flat(canvas, colour), share)


def blank(canvas, severity):
    """One flat colour, or white, or black, or noise that no object came out of."""
    del severity
    if canvas.rng.random() < 0.3:
        length = canvas.rng.uniform(0.01, 0.08) * canvas.side
        grain = base._blurred(canvas.rng.standard_normal(canvas.picture.shape).astype(np.float32), length)
        return canvas.rng.random(3) + grain / grain.std() * canvas.rng.uniform(0.03, 0.2)
    flat = [np.zeros(3), np.ones(3), canvas.rng.random(3), canvas.empty.mean((0, 1)), _colour(canvas)]
    return _flat(canvas, flat[canvas.rng.integers(len(flat))])


CORRUPTIONS: dict[str, Corruption] = base.CORRUPTIONS | {
    function.__name__: function for function in (mixed, muddled, bled, doubled, stained, blank)
}
COMMON = base.COMMON | {"mixed": 3.0, "empty": 2.0}
ONSET = base.ONSET | {"mixed": 0.3}


def badness(faults) -> float:
    """How bad a picture with these faults looks, 0 (clean) to 1 (ruined); several faults add up towards 1."""
    intact = 1.0
    for kind, severity in faults:
        intact *= 1 - (ONSET[kind] + (1 - ONSET[kind]) * severity)
    return 1 - intact


def corrupt(canvas: Canvas, kind: str, severity: float) -> np.ndarray:
    """The damaged picture, [R, R, 3] uint8."""
    return (np.clip(CORRUPTIONS[kind](canvas, severity), 0, 1) * 255 + 0.5).astype(np.uint8)


def draw_damage(rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
    """What befalls one picture: one corruption, or two at once in a quarter of the cases, as (kind, severity)."""
    weights = np.array([COMMON.get(kind, 1.0) for kind in CORRUPTIONS])
    count = 1 + int(rng.random() < 0.25)
    kinds = [str(kind) for kind in rng.choice(list(CORRUPTIONS), size=count, replace=False, p=weights / weights.sum())]
    return tuple((kind, 1.0 if kind in base.ALWAYS_SEVERE else float(rng.random())) for kind in kinds)


def damage(canvas: Canvas, faults: Sequence[tuple[str, float]]) -> np.ndarray:
    """All the faults, one after the other, [R, R, 3] uint8."""
    for kind, severity in faults:
        canvas = replace(canvas, picture=corrupt(canvas, kind, severity).astype(np.float32) / 255)
    return (canvas.picture * 255 + 0.5).astype(np.uint8)
