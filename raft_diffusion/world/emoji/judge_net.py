"""The emoji's gold judge's network: which size, tint, object, background and position a picture shows."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from raft_diffusion.world.clip_model import halved
from raft_diffusion.world.emoji.scenes import ATTRIBUTES
from raft_diffusion.world.judge_net import BROKEN, _Block

RESOLUTION = 128
ANSWERS = {key: (*values, BROKEN) if key in ("tint", "object") else values for key, values in ATTRIBUTES.items()}
CHANNELS = (16, 32, 64, 96, 128)


class JudgeNet(nn.Module):
    """A small convolutional classifier with one head per attribute."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(*(_Block(a, b) for a, b in itertools.pairwise((3, *CHANNELS))))
        self.hidden = nn.Linear(CHANNELS[-1] * (RESOLUTION >> len(CHANNELS)) ** 2, 192)
        self.heads = nn.ModuleDict({key: nn.Linear(192, len(values)) for key, values in ANSWERS.items()})

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits [B, answers] by attribute, of pictures [B, 3, 128, 128] in -1..1."""
        features = F.relu(self.hidden(self.blocks(picture).flatten(1)))
        return {key: head(features) for key, head in self.heads.items()}


def judge_input(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of any size to [N, 3, 128, 128] in -1..1, bicubic."""
    size = (RESOLUTION, RESOLUTION)
    sized = [p.convert("RGB") if p.size == size else p.convert("RGB").resize(size, Image.Resampling.BICUBIC) for p in pictures]
    return torch.from_numpy(np.stack([np.asarray(p) for p in sized])).permute(0, 3, 1, 2).float() / 127.5 - 1


def save_judge(net: JudgeNet, folder: Path) -> None:
    """Writes weights (fp16) and the names of the answers."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(halved(net.state_dict()), folder / "judge.safetensors")
    (folder / "config.json").write_text(json.dumps({"answers": ANSWERS}, indent=2) + "\n")


def load_judge(folder: Path) -> JudgeNet:
    """The network of a folder, for use."""
    net = JudgeNet()
    net.load_state_dict(load_file(folder / "judge.safetensors"))
    return net.eval()
