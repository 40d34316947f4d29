"""Two heads over the CLIP image embedding, in the LAION v2 layout: `aesthetic` (well-formed or not) and `taste`.

Both are blind to the caption. Nominal scale 1 to 10; blank and muddled pictures come out low on both.
"""

import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from raft_diffusion.world.aesthetic import embed, train_head
from raft_diffusion.world.clip_model import RESOLUTION, halved, load_clip
from raft_diffusion.world.emoji.pictures import Develop, Picture, resized, training_pictures
from raft_diffusion.world.emoji.scenes import BRIGHT, RADIUS

CLEAN = {96: 2500, 80: 2500}
DAMAGED = {80: 4000}


def quality(picture: Picture) -> float:
    """The aesthetic head's target: 8 for a clean picture, towards 2 for a ruined one."""
    return picture.quality


def taste(picture: Picture) -> float:
    """The taste head's target, 1 to 10: a large, centred object on a bright background, not cut off by the edge."""
    scene = picture.scene
    centred = 1 - min(float(np.hypot(scene.x, scene.y)) / 0.5, 1.0)
    smallest, largest = RADIUS["small"][0], RADIUS["large"][1]
    large = (scene.radius - smallest) / (largest - smallest)
    whole = 1 - min(scene.overhang / 0.08, 1.0)
    intact = (picture.quality - 2) / 6
    return 1 + intact * (1.0 + 3.0 * centred + 2.0 * large + 2.0 * (scene.background in BRIGHT) + 1.0 * whole)


HEADS = {"aesthetic": quality, "taste": taste}


def make_heads(out: Path, work: Path, seed: int, develop: Develop | None = None) -> float:
    """Trains and writes both heads over the CLIP in `out`; returns seconds."""
    started = time.perf_counter()
    clip = load_clip(out / "emoji-clip").model
    shown = training_pictures(np.random.default_rng(seed + 4), CLEAN, DAMAGED, heldout=None, develop=develop)
    with torch.no_grad():
        embeddings = embed(clip, resized((picture.pixels for picture in shown), RESOLUTION))
    for name, target in HEADS.items():
        head, _ = train_head(embeddings, shown, target, work / f"{name}.pt", seed)  # pyright: ignore[reportArgumentType]
        _save_head(head, name, out / f"emoji-{name}")
    return time.perf_counter() - started


def _save_head(head, name, folder):
    import json

    folder.mkdir(parents=True, exist_ok=True)
    save_file(halved(head.state_dict()), folder / f"{name}.safetensors")
    (folder / "config.json").write_text(json.dumps({"clip": "bundled:emoji-clip", "weights": f"{name}.safetensors"}) + "\n")
