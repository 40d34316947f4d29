"""Which combinations of colour, shape and background pretraining sees, and the prompts that ship.

58 of the 384 combinations (15 %) are held out: no model here has met them. Every pair of attributes is still seen, so
a held-out prompt asks for a new combination of familiar parts.
"""

import itertools
from functools import cache

import numpy as np

from raft_diffusion.world.captions import caption
from raft_diffusion.world.scenes import ATTRIBUTES, BACKGROUNDS, COLOURS, SHAPES, Scene, draw_scene

HELDOUT_SHARE = 0.15
SPLIT_SEED = 2023
TRIPLE = ("colour", "shape", "background")


@cache
def heldout_triples() -> frozenset[tuple[str, str, str]]:
    """(colour, shape, background) of the combinations that pretraining never sees."""
    triples = list(itertools.product(COLOURS, SHAPES, BACKGROUNDS))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(triples))
    return frozenset(triples[i] for i in order[: round(HELDOUT_SHARE * len(triples))])


def is_heldout(names: dict[str, str]) -> bool:
    """Whether the combination was kept from pretraining."""
    return tuple(names[key] for key in TRIPLE) in heldout_triples()


def draw_names(rng: np.random.Generator, heldout: bool) -> dict[str, str]:
    """Five names, uniform over the combinations of one split."""
    while True:
        names = {key: str(rng.choice(values)) for key, values in ATTRIBUTES.items()}
        if is_heldout(names) == heldout:
            return names


def draw_scenes(rng: np.random.Generator, count: int, heldout: bool = False) -> list[Scene]:
    """`count` scenes of one split."""
    return [draw_scene(rng, draw_names(rng, heldout)) for _ in range(count)]


def draw_prompts(
    rng: np.random.Generator, count: int, heldout: bool, keys: tuple[str, ...], fixed: dict[str, str] | None = None
) -> list[str]:
    """Distinct captions of one split that say the attributes `keys`.

    Every attribute goes round its values in a random order, so that a short list is balanced; only shape and background are
    redrawn where a combination is of the other split.

    Args:
        rng: of the orders.
        count: captions.
        heldout: split.
        keys: attributes that are said.
        fixed: attributes that are the same in all captions.
    """
    prompts: list[str] = []
    turns = {key: itertools.cycle(rng.permutation(values).tolist()) for key, values in ATTRIBUTES.items()}
    while len(prompts) < count:
        names = {key: str(next(turn)) for key, turn in turns.items()} | (fixed or {})
        while is_heldout(names) != heldout:
            names["background"] = str(rng.choice(ATTRIBUTES["background"]))
            if rng.random() < 0.1:
                names["shape"] = str(rng.choice(SHAPES))
        text = caption({key: names[key] for key in ATTRIBUTES if key in keys})
        if text not in prompts:
            prompts.append(text)
    return prompts
