"""What both denoisers learn from: latents of renders with captions of several forms, made once and kept in a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from raft_diffusion.world.emoji.captions import draw_caption, drop_names
from raft_diffusion.world.emoji.scenes import render
from raft_diffusion.world.emoji.splits import draw_scenes
from raft_diffusion.world.emoji.tokenizer import token_ids
from raft_diffusion.world.vae import encode

COUNT = 16_000  # pictures, all at 128²
CAPTIONS = 6  # of each picture
OMITTED = 0.2  # of captions leave out size, position or background, each on its own
NO_CAPTION = 0.10


@dataclass(frozen=True)
class Lessons:
    """Latents [N, 8, 16, 16] with mean 0 and deviation 1, and token ids [N, C, T] of the captions of each."""

    latents: torch.Tensor
    ids: torch.Tensor
    nothing: torch.Tensor  # [T] of the empty caption

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [B, 8, 16, 16] and token ids [B, T], some of which say nothing."""
        rows = torch.randint(len(self.latents), (count,), generator=generator)
        which = torch.randint(self.ids.shape[1], (count,), generator=generator)
        ids = self.ids[rows, which].long()
        ids[torch.rand(count, generator=generator) < NO_CAPTION] = self.nothing
        return self.latents[rows].float(), ids


def make_lessons(vae, seed: int, count: int = COUNT) -> dict[str, torch.Tensor]:
    """Renders, encodes and captions `count` scenes of the pretraining split; tensors as `Lessons` has them."""
    rng = np.random.default_rng(seed + 2)
    scenes = draw_scenes(rng, count)
    parts = [encode(vae, render(scenes[at : at + 512], 128), seed + at).half() for at in range(0, count, 512)]
    texts = [draw_caption(rng, drop_names(rng, scene.attributes(), OMITTED)) for scene in scenes for _ in range(CAPTIONS)]
    ids = torch.cat([token_ids(texts[at : at + 4096]) for at in range(0, len(texts), 4096)])
    return {"latents": torch.cat(parts), "ids": ids.view(count, CAPTIONS, -1).short(), "nothing": token_ids([""])[0]}


def load_lessons(cache: Path, vae, seed: int, count: int = COUNT) -> Lessons:
    """From the file, which is made first where there is none."""
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".partial")
        torch.save(make_lessons(vae, seed, count), partial)
        partial.replace(cache)
    return Lessons(**torch.load(cache, weights_only=True))
