"""More training for CLIP's image tower, the text transformer locked: it learns shapes, and how well-formed a picture is.

The text transformer is the Stable Diffusion's text encoder and must not move any more; the projection behind it may. Here
each picture also meets its own caption with one attribute swapped. Beside the captions, a linear read-out of the
picture's quality is trained, so that the embedding has that direction, as a CLIP trained on the whole web has.

Source: Zhai et al. 2022, LiT (there the image tower is locked); Yuksekgonul et al. 2023, NegCLIP (swapped captions).
"""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from raft_diffusion.world.captions import caption
from raft_diffusion.world.clip_model import WIDTH
from raft_diffusion.world.clip_train import BATCH, LEGIBLE, contrastive_loss, normalised, token_ids
from raft_diffusion.world.pictures import Picture, describe, stacked, training_pictures
from raft_diffusion.world.scenes import ATTRIBUTES, Scene
from raft_diffusion.world.tokenizer import END, build_tokenizer
from raft_diffusion.world.training import train
from raft_diffusion.world.vae import round_trip

STEPS = 900
LR = 1.5e-3
CLEAN = {64: 6000, 32: 6000}
DAMAGED = {64: 5000, 32: 7000}
QUALITY_WEIGHT, SWAP_WEIGHT = 0.3, 1.0


def encode_ends(clip, texts: list[str], batch: int = 256) -> torch.Tensor:
    """States [N, W] of the end token after the locked transformer, before the projection; no gradient."""
    tokenizer = build_tokenizer()
    ids = token_ids(tokenizer, texts)
    end = tokenizer.convert_tokens_to_ids(END)
    ends = []
    with torch.no_grad():
        for part in ids.split(batch):
            states = clip.token_embedding(part) + clip.positional_embedding
            states = clip.ln_final(clip.transformer(states, attn_mask=clip.attn_mask))
            at = torch.isin(part, torch.tensor(end)).int().argmax(-1)
            ends.append(states[torch.arange(len(part)), at])
    return torch.cat(ends)


class Swaps:
    """Every full caption's end state, and for a scene the rows of its captions with one attribute swapped."""

    def __init__(self, clip):
        names = [dict(zip(ATTRIBUTES, values, strict=True)) for values in itertools.product(*ATTRIBUTES.values())]
        self.row = {tuple(name.values()): index for index, name in enumerate(names)}
        self.ends = encode_ends(clip, [caption(name) for name in names])  # [captions, W]

    def rows(self, scene: Scene, key: str) -> list[int]:
        """Rows of the captions that differ in `key`, in the order of its values."""
        own = scene.attributes()
        return [self.row[tuple((own | {key: value}).values())] for value in ATTRIBUTES[key]]


def swap_loss(image: torch.Tensor, shown: list[Picture], swaps: Swaps, projection: torch.Tensor, scale: torch.Tensor):
    """Cross-entropy of each picture's own caption against those with one attribute swapped, mean over attributes.

    Args:
        image: [B, D] L2-normalised.
        shown: the B pictures.
        swaps: end states of all captions.
        projection: [W, D] text projection.
        scale: inverse temperature.
    """
    legible = [row for row, picture in enumerate(shown) if picture.quality >= LEGIBLE]
    losses = []
    for key, values in ATTRIBUTES.items():
        rows = torch.tensor([swaps.rows(shown[row].scene, key) for row in legible])  # [L, values]
        right = torch.tensor([values.index(getattr(shown[row].scene, key)) for row in legible])
        text = F.normalize(swaps.ends[rows] @ projection, dim=-1)
        losses.append(F.cross_entropy(scale * torch.einsum("ld,lvd->lv", image[legible], text), right))
    return torch.stack(losses).mean()


class _Trained(nn.Module):
    """What the second stage trains: image tower, text projection, temperature, quality read-out."""

    def __init__(self, clip):
        super().__init__()
        self.visual, self.projection, self.logit_scale = clip.visual, clip.text_projection, clip.logit_scale
        self.readout = nn.Linear(WIDTH, 1)


def train_vision(work: Path, seed: int, clip, vae) -> float:
    """Trains the image tower and the text projection in place; returns seconds."""
    torch.manual_seed(seed)
    part = _Trained(clip)
    rng = np.random.default_rng(seed + 5)
    shown = training_pictures(rng, CLEAN, DAMAGED, partial(round_trip, vae))
    pictures, tokenizer, swaps = stacked(shown), build_tokenizer(), Swaps(clip)
    quality = torch.tensor([picture.quality for picture in shown])

    def loss(step, generator):
        rows = torch.randint(len(shown), (BATCH,), generator=generator).tolist()
        words = np.random.default_rng([seed, step])
        texts = [describe(words, shown[row]) for row in rows]
        ids = token_ids(tokenizer, texts)
        text = F.normalize(encode_ends(clip, texts) @ part.projection, dim=-1)
        image = F.normalize(part.visual(normalised(pictures[rows])), dim=-1)
        scale = part.logit_scale.exp().clamp(max=100)
        # Read out of the normalised embedding times its width's root: unit variance per element.
        error = F.mse_loss(part.readout(image * WIDTH**0.5).squeeze(-1) + quality.mean(), quality[rows])
        swapped = swap_loss(image, [shown[row] for row in rows], swaps, part.projection, scale)
        return contrastive_loss(image, text, scale, ids) + SWAP_WEIGHT * swapped + QUALITY_WEIGHT * error

    return train(part, loss, steps=STEPS, lr=LR, seed=seed, checkpoint=work / "vision.pt", weight_decay=0.05)
