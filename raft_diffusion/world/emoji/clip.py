"""Contrastive pretraining of the emoji's CLIP on clean and damaged pictures with captions that say so.

A batch of random captions can nearly always be told apart by background and place, so contrast alone teaches little about
objects. So every attribute is read out besides, by one linear layer for both towers: from the picture where it is legible, and
from its full caption in a form at random.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from raft_diffusion.world.clip_model import RESOLUTION, WIDTH, build_clip
from raft_diffusion.world.clip_train import LEGIBLE, contrastive_loss, normalised
from raft_diffusion.world.emoji.captions import draw_caption
from raft_diffusion.world.emoji.pictures import Picture, describe, resized, training_pictures
from raft_diffusion.world.emoji.scenes import ATTRIBUTES, Scene
from raft_diffusion.world.emoji.tokenizer import build_tokenizer, token_ids
from raft_diffusion.world.training import train

STEPS = 1100
BATCH = 128
LR = 2e-3
CLEAN = {96: 7000, 80: 3000}
DAMAGED = {80: 5000}
READ_WEIGHT, QUALITY_WEIGHT = 1.0, 0.3


class Readouts(nn.Module):
    """One linear layer per attribute for the embeddings of both towers, and one for a picture's quality."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({key: nn.Linear(WIDTH, len(values)) for key, values in ATTRIBUTES.items()})
        self.quality = nn.Linear(WIDTH, 1)

    def loss(self, embedding: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        """Cross-entropy of the scenes' attributes, mean over scenes and attributes.

        Args:
            embedding: [B, D] L2-normalised.
            scenes: the B that are shown or told.
        """
        scaled = embedding * WIDTH**0.5  # unit variance per element
        losses = []
        for key, layer in self.layers.items():
            right = torch.tensor([ATTRIBUTES[key].index(getattr(scene, key)) for scene in scenes])
            losses.append(F.cross_entropy(layer(scaled), right))
        return torch.stack(losses).mean()

    def quality_loss(self, embedding: torch.Tensor, shown: Sequence[Picture]) -> torch.Tensor:
        """Mean squared error of the pictures' quality, of L2-normalised embeddings [B, D]."""
        right = torch.tensor([picture.quality for picture in shown], dtype=torch.float32)
        return F.mse_loss(self.quality(embedding * WIDTH**0.5).squeeze(-1) + 6.0, right)


class Trained(nn.Module):
    """The CLIP, and what reads attributes out of it."""

    def __init__(self):
        super().__init__()
        self.clip, self.readouts = build_clip(build_tokenizer()), Readouts()


def clip_loss(part: Trained, shown: Sequence[Picture], pictures: np.ndarray, words: np.random.Generator) -> torch.Tensor:
    """Contrast, plus the attributes read out of both towers, plus the quality read out of the image tower.

    Args:
        part: CLIP and read-outs.
        shown: B pictures.
        pictures: [B, 64, 64, 3] uint8, the same at CLIP's size.
        words: of the captions.
    """
    clip = part.clip
    ids = token_ids([describe(words, picture) for picture in shown])
    full = token_ids([draw_caption(words, picture.scene.attributes()) for picture in shown])
    # PyTorch's fused attention is slow in bf16 on CPUs, above all backwards.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        image = clip.encode_image(normalised(pictures).contiguous(memory_format=torch.channels_last))
        texts = clip.encode_text(torch.cat([ids, full]))
    image, (text, told) = F.normalize(image.float(), dim=-1), F.normalize(texts.float(), dim=-1).chunk(2)
    legible = [row for row, picture in enumerate(shown) if picture.quality >= LEGIBLE]
    read = part.readouts.loss(image[legible], [shown[row].scene for row in legible])
    read = read + part.readouts.loss(told, [picture.scene for picture in shown])
    contrast = contrastive_loss(image, text, clip.logit_scale.exp().clamp(max=100), ids)
    return contrast + READ_WEIGHT * read + QUALITY_WEIGHT * part.readouts.quality_loss(image, shown)


def train_clip(work: Path, seed: int, *, steps: int = STEPS):
    """Trains image and text tower together; returns (clip, seconds)."""
    torch.manual_seed(seed)
    part = Trained()
    shown = training_pictures(np.random.default_rng(seed + 1), CLEAN, DAMAGED)
    pictures = resized((picture.pixels for picture in shown), RESOLUTION)

    def loss(step, generator):
        rows = torch.randint(len(shown), (BATCH,), generator=generator).tolist()
        return clip_loss(part, [shown[row] for row in rows], pictures[rows], np.random.default_rng([seed, step]))

    seconds = train(part, loss, steps=steps, lr=LR, seed=seed, checkpoint=work / "clip.pt", weight_decay=0.05)
    return part.clip, seconds
