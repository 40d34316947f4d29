"""More training for the CLIP's image tower, the text tower locked: it learns objects, and how well-formed a picture is.

The text tower is the text encoder of both denoisers and must not move any more. Each picture meets, besides the captions of the
batch, its own caption with one attribute swapped, most often the object.

Source: Zhai et al. 2022, LiT (there the image tower is locked); Yuksekgonul et al. 2023, NegCLIP (swapped captions).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from raft_diffusion.world.clip_model import RESOLUTION
from raft_diffusion.world.clip_train import LEGIBLE, normalised
from raft_diffusion.world.emoji.captions import draw_caption
from raft_diffusion.world.emoji.clip import QUALITY_WEIGHT, READ_WEIGHT, Readouts
from raft_diffusion.world.emoji.pictures import Develop, Picture, describe, resized, training_pictures
from raft_diffusion.world.emoji.scenes import ATTRIBUTES
from raft_diffusion.world.emoji.tokenizer import token_ids
from raft_diffusion.world.training import train

STEPS = 1200
BATCH = 128
LR = 2e-3
CLEAN = {96: 4000, 80: 4000}
DAMAGED = {80: 4000}
SWAPPED = ("object", "object", "object", "tint", "background", "position", "size")


def swapped(rng: np.random.Generator, names: dict[str, str]) -> dict[str, str]:
    """The names with one of them changed to another value."""
    key = str(rng.choice(SWAPPED))
    others = [value for value in ATTRIBUTES[key] if value != names[key]]
    return names | {key: str(rng.choice(others))}


class Trained(torch.nn.Module):
    """What this stage trains: image tower, temperature, read-outs."""

    def __init__(self, clip):
        super().__init__()
        self.visual, self.logit_scale, self.readouts = clip.visual, clip.logit_scale, Readouts()


def vision_loss(
    part: Trained, clip, shown: Sequence[Picture], pictures: np.ndarray, words: np.random.Generator
) -> torch.Tensor:
    """Each picture's caption against those of the batch and its own swapped one, plus attributes and quality read out.

    Args:
        part: image tower and read-outs.
        clip: the CLIP that the tower belongs to; its text tower is used as it is.
        shown: B pictures.
        pictures: [B, 64, 64, 3] uint8.
        words: of the captions.
    """
    ids = token_ids([describe(words, picture) for picture in shown])
    names = [picture.scene.attributes() for picture in shown]
    wrong = token_ids([draw_caption(words, swapped(words, own)) for own in names])
    full = token_ids([draw_caption(words, own) for own in names])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        texts = clip.encode_text(torch.cat([ids, full, wrong])).float()
    text, told, swap = F.normalize(texts, dim=-1).chunk(3)
    with torch.autocast("cpu", torch.bfloat16):
        image = part.visual(normalised(pictures).contiguous(memory_format=torch.channels_last))
    image = F.normalize(image.float(), dim=-1)
    legible = [row for row, picture in enumerate(shown) if picture.quality >= LEGIBLE]
    scale = part.logit_scale.exp().clamp(max=100)
    same = (ids[:, None] == ids[None]).all(-1).float()
    contrast = F.cross_entropy(scale * image @ text.T, same / same.sum(-1, keepdim=True))
    own, other = ((image[legible] * side[legible]).sum(-1) for side in (told, swap))
    swaps = F.softplus(scale * (other - own)).mean()
    read = part.readouts.loss(image[legible], [shown[row].scene for row in legible])
    return contrast + swaps + READ_WEIGHT * read + QUALITY_WEIGHT * part.readouts.quality_loss(image, shown)


def train_vision(work: Path, seed: int, clip, *, steps: int = STEPS, develop: Develop | None = None) -> float:
    """Trains the image tower in place; returns seconds."""
    torch.manual_seed(seed)
    part = Trained(clip)
    shown = training_pictures(np.random.default_rng(seed + 5), CLEAN, DAMAGED, develop=develop)
    pictures = resized((picture.pixels for picture in shown), RESOLUTION)

    def loss(step, generator):
        rows = torch.randint(len(shown), (BATCH,), generator=generator).tolist()
        return vision_loss(part, clip, [shown[row] for row in rows], pictures[rows], np.random.default_rng([seed, step]))

    return train(part, loss, steps=steps, lr=LR, seed=seed, checkpoint=work / "vision.pt", weight_decay=0.05)
