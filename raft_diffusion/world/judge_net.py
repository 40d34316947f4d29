"""The gold judge's network: which size, colour, shape, background and position a picture shows."""

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

from raft_diffusion.world.scenes import ATTRIBUTES

RESOLUTION = 64
BROKEN = "none"  # the answer for colour and shape when there is no well-formed object
ANSWERS = {key: (*values, BROKEN) if key in ("colour", "shape") else values for key, values in ATTRIBUTES.items()}
CHANNELS = (24, 48, 96, 128)


class _Block(nn.Module):
    """Halves the resolution, then one residual convolution."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.down = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.same = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm_same = nn.BatchNorm2d(after)

    def forward(self, x):
        x = F.relu(self.norm(self.down(x)))
        return F.relu(x + self.norm_same(self.same(x)))


class JudgeNet(nn.Module):
    """A small convolutional classifier with one head per attribute."""

    def __init__(self):
        super().__init__()
        widths = (3, *CHANNELS)
        self.blocks = nn.Sequential(*(_Block(a, b) for a, b in itertools.pairwise(widths)))
        self.hidden = nn.Linear(CHANNELS[-1] * 16, 128)
        self.heads = nn.ModuleDict({key: nn.Linear(128, len(values)) for key, values in ANSWERS.items()})

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits [B, answers] by attribute, of pictures [B, 3, 64, 64] in -1..1."""
        features = F.relu(self.hidden(self.blocks(picture).flatten(1)))
        return {key: head(features) for key, head in self.heads.items()}


def judge_input(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of any size to [N, 3, 64, 64] in -1..1, bicubic."""
    size = (RESOLUTION, RESOLUTION)
    sized = [p.convert("RGB") if p.size == size else p.convert("RGB").resize(size, Image.Resampling.BICUBIC) for p in pictures]
    return torch.from_numpy(np.stack([np.asarray(p) for p in sized])).permute(0, 3, 1, 2).float() / 127.5 - 1


def save_judge(net: JudgeNet, folder: Path) -> None:
    """Writes weights (fp16) and the names of the answers."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: (v.half() if v.dtype == torch.float32 else v).contiguous() for k, v in net.state_dict().items()}
    save_file(state, folder / "judge.safetensors")
    (folder / "config.json").write_text(json.dumps({"answers": ANSWERS}, indent=2) + "\n")


def load_judge(folder: Path) -> JudgeNet:
    """The network of a folder, for use."""
    net = JudgeNet()
    net.load_state_dict(load_file(folder / "judge.safetensors"))
    return net.eval()
