"""Contrastive pretraining of the world's CLIP on clean and damaged pictures with captions that say so.

A batch of random captions can nearly always be told apart by colour, background and place, so contrast alone teaches hardly
anything about shapes. So every attribute is read out besides, by one linear layer for both towers: from the picture where it
is legible, and from its full caption.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from raft_diffusion.world.captions import caption
from raft_diffusion.world.clip_model import CONTEXT, WIDTH, build_clip
from raft_diffusion.world.pictures import describe, stacked, training_pictures
from raft_diffusion.world.scenes import ATTRIBUTES, Scene
from raft_diffusion.world.tokenizer import build_tokenizer
from raft_diffusion.world.training import train

STEPS = 800
READ_WEIGHT = 1.0
LEGIBLE = 6.5  # quality from which a damaged picture still shows its caption
BATCH = 128
LR = 2e-3
CLEAN = {64: 8000, 32: 4000}
DAMAGED = {64: 6000, 32: 4000}
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalised(pictures: np.ndarray) -> torch.Tensor:
    """[N, 64, 64, 3] uint8 to [N, 3, 64, 64] as CLIP takes it."""
    picture = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (picture - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE, mean over the batch; equal captions are all positives of one another.

    Args:
        image: [B, D] L2-normalised.
        text: [B, D] L2-normalised.
        scale: inverse temperature.
        ids: [B, T] token ids, to find equal captions.

    Source: Radford et al. 2021, fig. 3. Differs: several positives per row share the target.
    """
    logits = scale * image @ text.T
    same = (ids[:, None] == ids[None]).all(-1).float()
    target = same / same.sum(-1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Readouts(nn.Module):
    """One linear layer per attribute, for the embeddings of both towers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({key: nn.Linear(WIDTH, len(values)) for key, values in ATTRIBUTES.items()})

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


class _Trained(nn.Module):
    """The CLIP, and what reads attributes out of it."""

    def __init__(self):
        super().__init__()
        self.clip, self.readouts = build_clip(), Readouts()


def token_ids(tokenizer, texts: list[str]) -> torch.Tensor:
    """[N, T] int64, padded."""
    return tokenizer(texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt").input_ids


def train_clip(work: Path, seed: int):
    """Trains image and text tower together; returns (clip, seconds)."""
    torch.manual_seed(seed)
    part = _Trained()
    clip = part.clip
    rng = np.random.default_rng(seed + 1)
    shown = training_pictures(rng, CLEAN, DAMAGED)
    pictures, tokenizer = stacked(shown), build_tokenizer()

    def loss(step, generator):
        rows = torch.randint(len(shown), (BATCH,), generator=generator).tolist()
        words = np.random.default_rng([seed, step])
        ids = token_ids(tokenizer, [describe(words, shown[row]) for row in rows])
        full = token_ids(tokenizer, [caption(shown[row].scene.attributes()) for row in rows])
        image = clip.encode_image(normalised(pictures[rows]), True)
        text, told = clip.encode_text(torch.cat([ids, full]), True).chunk(2)
        legible = [at for at, row in enumerate(rows) if shown[row].quality >= LEGIBLE]
        read = part.readouts.loss(image[legible], [shown[rows[at]].scene for at in legible])
        read = read + part.readouts.loss(told, [shown[row].scene for row in rows])
        return contrastive_loss(image, text, clip.logit_scale.exp().clamp(max=100), ids) + READ_WEIGHT * read

    seconds = train(part, loss, steps=STEPS, lr=LR, seed=seed, checkpoint=work / "clip.pt", weight_decay=0.05)
    return clip, seconds
