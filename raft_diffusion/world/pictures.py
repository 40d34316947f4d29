"""Training pictures with what is known of them: scenes clean and damaged, at 64² and at 32²."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raft_diffusion.world.captions import caption, drop_names
from raft_diffusion.world.corrupt import badness, canvases, damage, draw_damage
from raft_diffusion.world.scenes import Scene, render
from raft_diffusion.world.splits import draw_scenes

RESOLUTION = 64
OMITTED = 0.15  # of captions leave out size, position or background, each on its own


@dataclass(frozen=True)
class Picture:
    """One training picture.

    Attributes:
        scene: what it shows, or showed before it was damaged.
        side: pixels it was drawn at.
        faults: (kind, severity) of every damage; empty for a clean picture.
        pixels: [64, 64, 3] uint8, smaller pictures enlarged as CLIP's preprocessing does.
    """

    scene: Scene
    side: int
    faults: tuple[tuple[str, float], ...]
    pixels: np.ndarray

    @property
    def quality(self) -> float:
        """How well-formed it is, 2 (ruined) to 8 (clean); blind to what it shows."""
        return 8 - 6 * badness(self.faults)


GRADES = ("perfect", "good", "fair", "poor", "bad", "terrible")  # by falling quality
GRADED = 0.25  # of captions give a grade instead of the faults


def enlarged(pictures: np.ndarray) -> np.ndarray:
    """[N, S, S, 3] uint8 to [N, 64, 64, 3], bicubic."""
    if pictures.shape[1] == RESOLUTION:
        return pictures
    size = (RESOLUTION, RESOLUTION)
    return np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in pictures])


Develop = Callable[[np.ndarray], np.ndarray]  # pictures [N, S, S, 3] uint8 to the same, as an autoencoder's round trip


def clean_pictures(
    rng: np.random.Generator, count: int, side: int, *, heldout: bool = False, develop: Develop | None = None
) -> list[Picture]:
    """Clean scenes of one split, drawn at `side` pixels, then developed."""
    scenes = draw_scenes(rng, count, heldout)
    drawn = render(scenes, side)
    return _pictures(scenes, side, [()] * count, develop(drawn) if develop else drawn)


def damaged_pictures(
    rng: np.random.Generator, count: int, side: int, *, heldout: bool = False, develop: Develop | None = None
) -> list[Picture]:
    """Damaged scenes of one split, drawn at `side` pixels, then developed."""
    scenes = draw_scenes(rng, count, heldout)
    faults = [tuple(draw_damage(rng)) for _ in scenes]
    drawn = np.stack([damage(canvas, list(own)) for canvas, own in zip(canvases(scenes, side, rng), faults, strict=True)])
    return _pictures(scenes, side, faults, develop(drawn) if develop else drawn)


def training_pictures(
    rng: np.random.Generator, clean: dict[int, int], damaged: dict[int, int], develop: Develop | None = None
) -> list[Picture]:
    """Clean and damaged pictures of the pretraining split, counts by side; half of them developed, if that is given."""
    shown: list[Picture] = []
    for draw, counts in ((clean_pictures, clean), (damaged_pictures, damaged)):
        for side, count in counts.items():
            developed = count // 2 if develop else 0
            shown += draw(rng, count - developed, side)
            if developed:
                shown += draw(rng, developed, side, develop=develop)
    return shown


def _pictures(scenes, side, faults, drawn):
    return [Picture(scene, side, own, pixels) for scene, own, pixels in zip(scenes, faults, enlarged(drawn), strict=True)]


def describe(rng: np.random.Generator, picture: Picture) -> str:
    """A caption that says what a picture shows and what is wrong with it."""
    said = caption(drop_names(rng, picture.scene.attributes(), OMITTED))
    grade, graded = GRADES[round((8 - picture.quality) / 6 * (len(GRADES) - 1))], rng.random() < GRADED
    if not picture.faults and not graded:
        return said if rng.random() < 0.7 else f"a {rng.choice(['clean', 'sharp'])} picture of {said}"
    kinds = [kind for kind, _ in picture.faults]
    if "blank" in kinds:
        return f"a {grade} picture" if graded else "a blank picture"
    if "empty" in kinds:
        return f"{f'a {grade}' if graded else 'an empty'} picture of a {picture.scene.background} background"
    if graded:
        return f"a {grade} picture of {said}"
    words = [_degree(severity) + kind for kind, severity in picture.faults]
    article = "an" if words[0][0] in "aeiou" else "a"
    return f"{article} {' and '.join(words)} picture of {said}"


def _degree(severity):
    return "slightly " if severity < 0.3 else "very " if severity > 0.7 else ""


def stacked(pictures: Sequence[Picture]) -> np.ndarray:
    """[N, 64, 64, 3] uint8."""
    return np.stack([picture.pixels for picture in pictures])
