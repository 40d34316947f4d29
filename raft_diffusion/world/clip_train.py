"""Contrastive pretraining of the world's CLIP on clean and damaged pictures with captions that say so."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from raft_diffusion.world.clip_model import CONTEXT, build_clip
from raft_diffusion.world.pictures import describe, stacked, training_pictures
from raft_diffusion.world.tokenizer import build_tokenizer
from raft_diffusion.world.training import train

STEPS = 700
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


def train_clip(work: Path, seed: int):
    """Trains image and text tower together; returns (clip, seconds)."""
    torch.manual_seed(seed)
    clip = build_clip()
    rng = np.random.default_rng(seed + 1)
    shown = training_pictures(rng, CLEAN, DAMAGED)
    pictures, tokenizer = stacked(shown), build_tokenizer()

    def loss(step, generator):
        rows = torch.randint(len(shown), (BATCH,), generator=generator).tolist()
        words = np.random.default_rng([seed, step])
        texts = [describe(words, shown[row]) for row in rows]
        ids = tokenizer(texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt").input_ids
        image, text = clip.encode_image(normalised(pictures[rows]), True), clip.encode_text(ids, True)
        return contrastive_loss(image, text, clip.logit_scale.exp().clamp(max=100), ids)

    seconds = train(clip, loss, steps=STEPS, lr=LR, seed=seed, checkpoint=work / "clip.pt", weight_decay=0.05)
    return clip, seconds
