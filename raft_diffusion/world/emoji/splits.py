"""Which combinations of tint, object and background pretraining sees.

A twelfth of the (object, background) pairs is held out in natural colours and in all tints: no model here has met them. Every
object and every background is still seen, so a held-out prompt asks for a new combination of familiar parts.
"""

import itertools
from functools import cache

import numpy as np

from raft_diffusion.world.emoji.scenes import BACKGROUNDS, OBJECTS, Scene, draw_names, draw_scene

SPLIT_SEED = 2026


@cache
def heldout_pairs() -> frozenset[tuple[str, str]]:
    """(object, background): one background of every object, every background of three objects."""
    rng = np.random.default_rng(SPLIT_SEED)
    kinds, grounds = rng.permutation(OBJECTS).tolist(), itertools.cycle(rng.permutation(tuple(BACKGROUNDS)).tolist())
    return frozenset(zip(kinds, grounds, strict=False))


def is_heldout(names: dict[str, str]) -> bool:
    """Whether the combination was kept from pretraining."""
    return (names["object"], names["background"]) in heldout_pairs()


def draw_split_names(rng: np.random.Generator, heldout: bool | None) -> dict[str, str]:
    """Five names of one split, or of both where `heldout` is None."""
    names = draw_names(rng)
    if heldout is None:
        return names
    if heldout:
        grounds = dict(heldout_pairs())
        return names | {"background": grounds[names["object"]]}
    while is_heldout(names):
        names = draw_names(rng)
    return names


def draw_scenes(rng: np.random.Generator, count: int, heldout: bool | None = False) -> list[Scene]:
    """`count` scenes of one split, or of both where `heldout` is None."""
    return [draw_scene(rng, draw_split_names(rng, heldout)) for _ in range(count)]
