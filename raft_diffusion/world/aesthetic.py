"""Two heads over the CLIP image embedding, in the LAION v2 layout: `aesthetic` (well-formed or not) and `taste`.

Both are blind to the caption. Nominal scale 1 to 10; clean pictures come out near 8, ruined ones near 2.
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from raft_diffusion.world.clip_model import halved, load_clip
from raft_diffusion.world.clip_train import normalised
from raft_diffusion.world.pictures import Picture, stacked, training_pictures
from raft_diffusion.world.scenes import COLOURS, RADIUS
from raft_diffusion.world.training import train
from raft_diffusion.world.vae import round_trip

STEPS = 1000
BATCH = 512
LR = 1e-3


class LinearHead(nn.Module):
    """Linear layers without activations between them, keys `layers.0`, `.2`, `.4`, `.6`, `.7`.

    Source: LAION's improved-aesthetic-predictor. Differs: the width of the embedding.
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024), nn.Dropout(0.2),
            nn.Linear(1024, 128), nn.Dropout(0.2),
            nn.Linear(128, 64), nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Scores [B] of L2-normalised embeddings [B, D]."""
        return self.layers(embedding).squeeze(-1)


@torch.no_grad()
def embed(clip: nn.Module, pictures: np.ndarray, batch: int = 128) -> torch.Tensor:
    """L2-normalised image embeddings [N, D] of pictures [N, 64, 64, 3] uint8."""
    parts = [normalised(pictures[i : i + batch]) for i in range(0, len(pictures), batch)]
    return torch.cat([clip.encode_image(part, True) for part in parts])  # pyright: ignore[reportCallIssue]


def quality(picture: Picture) -> float:
    """The aesthetic head's target: 8 for a clean picture, towards 2 for a ruined one."""
    return picture.quality


def taste(picture: Picture) -> float:
    """The taste head's target, 1 to 10: a large, centred object of vivid colour on an even background.

    Vivid is relative to the colour's own name, so that taste does not prefer red to pink.
    """
    scene = picture.scene
    centred = 1 - min(float(np.hypot(scene.x, scene.y)) / 0.45, 1.0)
    smallest, largest = RADIUS["small"][0], RADIUS["large"][1]
    large = (scene.radius - smallest) / (largest - smallest)
    intact = (picture.quality - 2) / 6
    return 1 + intact * (1.5 + 3.0 * centred + 2.0 * large + 2.0 * _vividness(scene) + 0.5 * (1 - scene.falloff))


def _vividness(scene):
    """How far a tone lies towards the saturated and bright end of its name, 0..1."""
    _, saturation, value = COLOURS[scene.colour]
    high, low = max(scene.rgb), min(scene.rgb)
    s = ((high - low) / max(high, 1e-6) / saturation - 0.78) / 0.34
    v = (high / value - 0.88) / 0.20
    return float(np.clip((s + v) / 2 if saturation > 0.1 else v, 0, 1))


def train_head(
    embeddings: torch.Tensor, pictures: Sequence[Picture], target: Callable[[Picture], float], checkpoint: Path, seed: int
):
    """Fits one head by mean squared error; returns (head, seconds).

    Args:
        embeddings: [N, D] L2-normalised.
        pictures: N pictures they belong to.
        target: the score a picture should have.
        checkpoint: file of the run's state.
        seed: of weights and batches.
    """
    torch.manual_seed(seed)
    head = LinearHead(embeddings.shape[1])
    scores = torch.tensor([target(picture) for picture in pictures])
    head.layers[-1].bias.data.fill_(scores.mean().item())  # pyright: ignore[reportCallIssue]

    def loss(step, generator):
        rows = torch.randint(len(pictures), (BATCH,), generator=generator)
        torch.manual_seed(seed * 1_000_003 + step)  # for the dropout
        return F.mse_loss(head(embeddings[rows]), scores[rows])

    return head, train(head, loss, steps=STEPS, lr=LR, seed=seed, checkpoint=checkpoint, weight_decay=0.0)


COUNTS = {64: 5000, 32: 4000}  # clean and damaged pictures, each
HEADS = {"aesthetic": quality, "taste": taste}


def make_heads(out: Path, work: Path, seed: int, vae) -> float:
    """Trains and writes both heads over the CLIP in `out`; returns seconds."""
    started = time.perf_counter()
    clip = load_clip(out / "shapes-clip").model
    rng = np.random.default_rng(seed + 4)
    shown = training_pictures(rng, COUNTS, COUNTS, partial(round_trip, vae))
    embeddings = embed(clip, stacked(shown))
    for name, target in HEADS.items():
        head, _ = train_head(embeddings, shown, target, work / f"{name}.pt", seed)
        save_head(head, name, out / f"shapes-{name}")
    return time.perf_counter() - started


def save_head(head: LinearHead, name: str, folder: Path) -> None:
    """Writes the weights (fp16) and which CLIP they read."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(halved(head.state_dict()), folder / f"{name}.safetensors")
    (folder / "config.json").write_text(json.dumps({"clip": "bundled:shapes-clip", "weights": f"{name}.safetensors"}) + "\n")


def load_head(folder: Path) -> LinearHead:
    """The head of a folder, in fp32, for use."""
    weights = load_file(folder / json.loads((folder / "config.json").read_text())["weights"])
    head = LinearHead(weights["layers.0.weight"].shape[1])
    head.load_state_dict(weights)
    return head.eval()
