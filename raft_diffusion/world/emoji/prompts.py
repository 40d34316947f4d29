"""The emoji world's prompt files: two tasks, each with prompts to align on and prompts never seen."""

import itertools
from pathlib import Path

import numpy as np

from raft_diffusion.world.emoji.captions import caption
from raft_diffusion.world.emoji.scenes import ATTRIBUTES, NATURAL
from raft_diffusion.world.emoji.splits import heldout_pairs, is_heldout

FULL = ("size", "object", "background", "position")
SHORT = ("object", "background")
SEED = 7


def draw_prompts(
    rng: np.random.Generator, count: int, heldout: bool, keys: tuple[str, ...], fixed: dict[str, str] | None = None
) -> list[str]:
    """Distinct captions of one split, in natural colours, that say the attributes `keys`; every attribute takes turns.

    Args:
        rng: of the orders.
        count: captions.
        heldout: split.
        keys: attributes that are said.
        fixed: attributes that are the same in all captions.
    """
    held, prompts = dict(heldout_pairs()), []
    turns = {key: itertools.cycle(rng.permutation(values).tolist()) for key, values in ATTRIBUTES.items()}
    while len(prompts) < count:
        names = {key: str(next(turn)) for key, turn in turns.items()} | {"tint": NATURAL} | (fixed or {})
        if heldout:
            names["background"] = held[names["object"]]
        while not heldout and is_heldout(names):
            names["background"] = str(rng.choice(ATTRIBUTES["background"]))
        text = caption({key: names[key] for key in ATTRIBUTES if key in keys})
        if text not in prompts:
            prompts.append(text)
    return prompts


def prompt_files() -> dict[str, list[str]]:
    """File names and their prompts; held-out prompts put objects on backgrounds where pretraining never saw them."""
    rng, large = np.random.default_rng(SEED), {"size": "large"}
    return {
        "emoji_resolution_train.txt": draw_prompts(rng, 12, heldout=False, keys=FULL, fixed=large),
        "emoji_resolution_heldout.txt": draw_prompts(rng, 24, heldout=True, keys=FULL, fixed=large),
        "emoji_taste_train.txt": draw_prompts(rng, 12, heldout=False, keys=SHORT),
        "emoji_taste_heldout.txt": draw_prompts(rng, 24, heldout=True, keys=SHORT),
    }


def write_prompts(folder: Path) -> None:
    """One prompt per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in prompt_files().items():
        (folder / name).write_text("\n".join(prompts) + "\n")
