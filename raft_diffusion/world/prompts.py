"""The prompt files that ship: two tasks, each with prompts to align on and prompts never seen."""

from pathlib import Path

import numpy as np

from raft_diffusion.world.splits import draw_prompts

FULL = ("size", "colour", "shape", "background", "position")
PLACELESS = ("colour", "shape", "background")
# At 32² an object has 8×8 latents to itself at most: small stars and crosses do not survive the autoencoder.
LARGE = {"size": "large"}
SEED = 7


def prompt_files() -> dict[str, list[str]]:
    """File names and their prompts; held-out prompts combine colour, shape and background as pretraining never did."""
    rng = np.random.default_rng(SEED)
    return {
        "resolution_train.txt": draw_prompts(rng, 10, heldout=False, keys=FULL, fixed=LARGE),
        "resolution_heldout.txt": draw_prompts(rng, 24, heldout=True, keys=FULL, fixed=LARGE),
        "aesthetic_train.txt": draw_prompts(rng, 12, heldout=False, keys=PLACELESS),
        "aesthetic_heldout.txt": draw_prompts(rng, 24, heldout=True, keys=PLACELESS),
    }


def write_prompts(folder: Path) -> None:
    """One prompt per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in prompt_files().items():
        (folder / name).write_text("\n".join(prompts) + "\n")
