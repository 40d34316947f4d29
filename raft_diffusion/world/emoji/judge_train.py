"""Training of the emoji's gold judge on clean and damaged pictures of several sizes.

Clean pictures are varied as an autoencoder varies them (a little soft, a little off in colour); damaged ones count as their
object up to a mild severity, and as no object from a high one. Between the two, opinions differ and the judge is not trained.

A judge has to measure both splits alike, so it sees both. One that had met the held-out pairs only as chimeras called 3 % of
their clean renders broken.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from raft_diffusion.world.emoji.judge_net import ANSWERS, BROKEN, RESOLUTION, JudgeNet, load_judge
from raft_diffusion.world.emoji.pictures import Develop, Picture, resized, training_pictures
from raft_diffusion.world.judge_train import BACKGROUND_UNSURE, COLOUR_GONE, COLOUR_UNSURE, IGNORED
from raft_diffusion.world.judge_train import SHAPE_HOLDS as SHAPES_HOLD
from raft_diffusion.world.training import train
from raft_diffusion.world.vae import pixels

STEPS = 3000
BATCH = 64
LR = 2e-3
CLEAN = {128: 5000, 96: 2000, 80: 3000, 64: 1000}
DAMAGED = {128: 1000, 96: 1500, 80: 2500}
HOLDS = SHAPES_HOLD | {"mixed": (0.0, 0.45), "cut": (0.02, 0.45), "melted": (0.02, 0.35), "smeared": (0.03, 0.30)}


def labels(picture: Picture) -> dict[str, int]:
    """The right answer by attribute, or IGNORED where a damaged picture has none that is sure."""
    names = picture.scene.attributes()
    holds = all(severity <= HOLDS[kind][0] for kind, severity in picture.faults)
    broken = any(severity >= HOLDS[kind][1] for kind, severity in picture.faults)
    gone = any(severity >= COLOUR_GONE.get(kind, 2.0) for kind, severity in picture.faults)
    kinds = {kind for kind, _ in picture.faults}
    right = {key: ANSWERS[key].index(names[key]) for key in ANSWERS}
    if not holds:
        right |= {"size": IGNORED, "position": IGNORED, "object": ANSWERS["object"].index(BROKEN) if broken else IGNORED}
        right["tint"] = IGNORED
        right["background"] = IGNORED if kinds & BACKGROUND_UNSURE else right["background"]
    elif kinds & COLOUR_UNSURE:
        right["tint"] = IGNORED
    if gone:
        right["tint"] = ANSWERS["tint"].index(BROKEN)
    return right


def softened(picture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures [B, 3, S, S] in -1..1, each a little blurred, shifted in colour, and grainy, or not."""
    count = len(picture)
    blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(count, 1, 1, 1, generator=generator) * (torch.rand(count, 1, 1, 1, generator=generator) < 0.6)
    shift = torch.randn(count, 3, 1, 1, generator=generator) * 0.025
    grain = torch.randn(picture.shape, generator=generator) * 0.04 * torch.rand(count, 1, 1, 1, generator=generator)
    return torch.lerp(picture, blurred, share) + shift + grain


def judge_loss(net: JudgeNet, picture: torch.Tensor, right: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy, summed over attributes, mean over pictures that have an answer.

    Args:
        net: judge.
        picture: [B, 3, 128, 128] in -1..1.
        right: answers [B] by attribute, IGNORED where there is none.
    """
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(picture.contiguous(memory_format=torch.channels_last))
    losses = [
        F.cross_entropy(logits[key].float(), right[key], ignore_index=IGNORED, reduction="sum") / (right[key] != IGNORED).sum()
        for key in ANSWERS
    ]
    return torch.stack(losses).sum()


def train_judge(work: Path, seed: int, *, steps: int = STEPS, develop: Develop | None = None, warm: Path | None = None):
    """Trains the judge; returns (net, seconds).

    Args:
        work: folder of the checkpoint.
        seed: of weights, pictures and batches.
        steps: optimiser updates.
        develop: an autoencoder's round trip for every eighth picture.
        warm: folder of a judge to begin from where there is no checkpoint.
    """
    torch.manual_seed(seed)
    net = (load_judge(warm) if warm else JudgeNet()).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    shown = training_pictures(np.random.default_rng(seed + 3), CLEAN, DAMAGED, heldout=None, develop=develop)
    pictures = resized((picture.pixels for picture in shown), RESOLUTION)
    right = {key: torch.tensor([labels(picture)[key] for picture in shown]) for key in ANSWERS}

    def loss(_step, generator):
        rows = torch.randint(len(shown), (BATCH,), generator=generator)
        return judge_loss(net, softened(pixels(pictures[rows.numpy()]), generator), {key: right[key][rows] for key in ANSWERS})

    seconds = train(net, loss, steps=steps, lr=LR, seed=seed, checkpoint=work / "judge.pt", ema_decay=0.995)
    return net, seconds
