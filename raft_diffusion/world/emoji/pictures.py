"""Training pictures with what is known of them: scenes clean and damaged, drawn at several sizes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raft_diffusion.world.emoji.captions import draw_caption, drop_names
from raft_diffusion.world.emoji.corrupt import badness, canvases, damage, draw_damage
from raft_diffusion.world.emoji.scenes import Scene, render
from raft_diffusion.world.emoji.splits import draw_scenes

OMITTED = 0.2  # of captions leave out size, position or background, each on its own
GRADES = ("perfect", "good", "fair", "poor", "bad", "terrible")  # by falling quality
GRADED = 0.25  # of captions of damaged pictures give a grade instead of the faults
Develop = Callable[[np.ndarray], np.ndarray]  # pictures [N, S, S, 3] uint8 to the same, as an autoencoder's round trip


@dataclass(frozen=True)
class Picture:
    """One training picture.

    Attributes:
        scene: what it shows, or showed before it was damaged.
        faults: (kind, severity) of every damage; empty for a clean picture.
        pixels: [S, S, 3] uint8.
    """

    scene: Scene
    faults: tuple[tuple[str, float], ...]
    pixels: np.ndarray

    @property
    def quality(self) -> float:
        """How well-formed it is, 2 (ruined) to 8 (clean); blind to what it shows."""
        return 8 - 6 * badness(self.faults)


def resized(pictures: Iterable[np.ndarray], side: int) -> np.ndarray:
    """Pictures [S, S, 3] uint8 of any sizes to [N, side, side, 3], bicubic."""
    size, bicubic = (side, side), Image.Resampling.BICUBIC
    return np.stack([p if len(p) == side else np.asarray(Image.fromarray(p).resize(size, bicubic)) for p in pictures])


def clean_pictures(rng: np.random.Generator, count: int, side: int, *, heldout: bool | None = False) -> list[Picture]:
    """Clean scenes of one split, or of both where `heldout` is None, drawn at `side` pixels."""
    scenes = draw_scenes(rng, count, heldout)
    return [Picture(scene, (), pixels) for scene, pixels in zip(scenes, render(scenes, side), strict=True)]


def damaged_pictures(rng: np.random.Generator, count: int, side: int, *, heldout: bool | None = False) -> list[Picture]:
    """Damaged scenes of one split, or of both where `heldout` is None, drawn at `side` pixels."""
    shown = []
    for canvas in canvases(draw_scenes(rng, count, heldout), side, rng):
        faults = draw_damage(rng)
        shown.append(Picture(canvas.scene, faults, damage(canvas, faults)))  # pyright: ignore[reportArgumentType]
    return shown


def training_pictures(
    rng: np.random.Generator,
    clean: Mapping[int, int],
    damaged: Mapping[int, int],
    *,
    heldout: bool | None = False,
    develop: Develop | None = None,
) -> list[Picture]:
    """Clean and damaged pictures of one split, or of both, counts by side; every eighth developed, if that is given."""
    shown: list[Picture] = []
    for draw, counts in ((clean_pictures, clean), (damaged_pictures, damaged)):
        for side, count in counts.items():
            drawn = draw(rng, count, side, heldout=heldout)
            shown += [*drawn[: -(count // 8)], *_developed(drawn[-(count // 8) :], develop)] if develop else drawn
    return shown


def _developed(shown: Sequence[Picture], develop: Develop) -> list[Picture]:
    after = develop(np.stack([picture.pixels for picture in shown]))
    return [Picture(picture.scene, picture.faults, pixels) for picture, pixels in zip(shown, after, strict=True)]


def describe(rng: np.random.Generator, picture: Picture) -> str:
    """A caption that says what a picture shows and what is wrong with it."""
    said = draw_caption(rng, drop_names(rng, picture.scene.attributes(), OMITTED))
    grade, graded = GRADES[round((8 - picture.quality) / 6 * (len(GRADES) - 1))], rng.random() < GRADED
    if not picture.faults:
        return said if rng.random() < 0.8 else f"a {rng.choice(['clean', 'sharp', grade])} picture of {said}"
    kinds = [kind for kind, _ in picture.faults]
    if "blank" in kinds:
        return f"a {grade} picture" if graded else "a blank picture"
    if "empty" in kinds:
        return f"{f'a {grade}' if graded else 'an empty'} picture of a {picture.scene.background} background"
    if graded:
        return f"a {grade} picture of {said}"
    words = [_degree(severity) + kind for kind, severity in picture.faults]
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' and '.join(words)} picture of {said}"


def _degree(severity):
    return "slightly " if severity < 0.3 else "very " if severity > 0.7 else ""
