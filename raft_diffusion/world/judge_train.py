"""Training of the gold judge on clean and damaged pictures, half of them through the autoencoder and back."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from raft_diffusion.world.judge_net import ANSWERS, BROKEN, JudgeNet
from raft_diffusion.world.pictures import Picture, stacked, training_pictures
from raft_diffusion.world.training import train
from raft_diffusion.world.vae import pixels, round_trip

STEPS = 2200
BATCH = 128
LR = 2e-3
CLEAN = {64: 9000, 32: 7000}
DAMAGED = {64: 6000, 32: 6000}
IGNORED = -100

# Severity up to which a damaged object still counts as its shape, and from which there is no shape any more.
# Between the two, opinions differ and the judge is not trained.
SHAPE_HOLDS = {
    "blurry": (0.20, 0.65), "smeared": (0.06, 0.30), "noisy": (0.35, 1.01), "cut": (0.06, 0.40), "eaten": (0.0, 0.35),
    "ragged": (0.12, 0.50), "melted": (0.05, 0.35), "muddled": (0.15, 0.65), "bled": (0.25, 0.85), "doubled": (0.0, 0.25),
    "faded": (0.15, 0.65), "stained": (0.20, 1.01), "glaring": (0.30, 1.01), "messy": (0.05, 0.45),
    "broken": (0.0, 0.60), "empty": (0.0, 0.0), "blank": (0.0, 0.0),
}  # fmt: skip
COLOUR_GONE = {"muddled": 0.75, "faded": 0.85, "empty": 0.0, "blank": 0.0}
COLOUR_UNSURE = {"muddled", "glaring", "noisy", "faded", "doubled", "stained"}
BACKGROUND_UNSURE = {"muddled", "glaring", "noisy", "stained", "bled", "blank", "melted", "smeared"}


def labels(picture: Picture) -> dict[str, int]:
    """The right answer by attribute, or IGNORED where a damaged picture has none that is sure."""
    names = picture.scene.attributes()
    holds = all(severity <= SHAPE_HOLDS[kind][0] for kind, severity in picture.faults)
    broken = any(severity >= SHAPE_HOLDS[kind][1] for kind, severity in picture.faults)
    gone = any(severity >= COLOUR_GONE.get(kind, 2.0) for kind, severity in picture.faults)
    kinds = {kind for kind, _ in picture.faults}
    right = {key: ANSWERS[key].index(names[key]) for key in ANSWERS}
    if not holds:
        right |= {"size": IGNORED, "position": IGNORED, "shape": ANSWERS["shape"].index(BROKEN) if broken else IGNORED}
        right["colour"] = IGNORED if kinds & COLOUR_UNSURE else right["colour"]
        right["background"] = IGNORED if kinds & BACKGROUND_UNSURE else right["background"]
    if gone:
        right["colour"] = ANSWERS["colour"].index(BROKEN)
    return right


def train_judge(work: Path, seed: int, vae):
    """Trains the judge; returns (net, seconds)."""
    torch.manual_seed(seed)
    net = JudgeNet()
    rng = np.random.default_rng(seed + 3)
    shown = training_pictures(rng, CLEAN, DAMAGED, partial(round_trip, vae))
    pictures = stacked(shown)
    right = {key: torch.tensor([labels(picture)[key] for picture in shown]) for key in ANSWERS}

    def loss(_step, generator):
        rows = torch.randint(len(shown), (BATCH,), generator=generator)
        logits = net(pixels(pictures[rows.numpy()]))
        return sum(F.cross_entropy(logits[key], right[key][rows], ignore_index=IGNORED) for key in ANSWERS)

    seconds = train(net, loss, steps=STEPS, lr=LR, seed=seed, checkpoint=work / "judge.pt", ema_decay=0.995)  # pyright: ignore[reportArgumentType]
    return net, seconds
