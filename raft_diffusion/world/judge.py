"""The gold judges: does a picture show its caption? A judge, never a reward."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

BUNDLED = Path(__file__).parents[1] / "bundled"
WEIGHTS = "judge.safetensors"
SHAPES, EMOJI = "raft_diffusion.world", "raft_diffusion.world.emoji"


@dataclass(frozen=True)
class World:
    """What a judge knows of its world.

    Attributes:
        parse: caption → the attributes that it says; {} of a caption of another world.
        answers: attribute → its values, in the order of the network's logits.
        batch: pictures → the network's input.
        load: folder → the network.
    """

    parse: Callable[[str], dict[str, str]]
    answers: Mapping[str, Sequence[str]]
    batch: Callable[[Sequence[Any]], torch.Tensor]
    load: Callable[[Path], torch.nn.Module]


def world_of(folder: Path) -> World:
    """The world whose attributes are among the answers of a judge's folder: the emoji have objects, the shapes none."""
    config = folder / "config.json"
    answers = json.loads(config.read_text(encoding="utf-8"))["answers"] if config.is_file() else {}
    package = EMOJI if "object" in answers else SHAPES
    captions, net = (importlib.import_module(f"{package}.{name}") for name in ("captions", "judge_net"))
    return World(captions.parse_caption, net.ANSWERS, net.judge_input, net.load_judge)


class GoldJudge:
    """1.0 where every attribute that the caption mentions is right in the picture, 0.0 where one is not.

    A picture without a well-formed object is wrong whatever the caption says, and so is the tint of an emoji that the caption
    does not say. Captions that are not of the judge's world are not scored (NaN).
    """

    name = "gold"
    higher_is_better = True

    def __init__(self, folder: str | Path, batch_size: int = 64):
        """Loads the judge.

        Args:
            folder: with judge.safetensors.
            batch_size: pictures per forward pass.
        """
        self.batch_size = batch_size
        self.world = world_of(Path(folder))
        self.net = self.world.load(Path(folder))

    def __call__(self, samples: Sequence) -> np.ndarray:
        """Verdicts [N] on samples that have `.output` (a PIL image) and `.prompt.text`."""
        asked = [self.world.parse(sample.prompt.text) for sample in samples]
        seen = self.attributes([sample.output for sample in samples])
        return np.array(
            [
                float(all(shown[key] == value for key, value in said.items())) if said else np.nan
                for said, shown in zip(asked, seen, strict=True)
            ]
        )

    def attributes(self, pictures: Sequence) -> list[dict[str, str]]:
        """What each PIL picture shows: one answer per attribute, "none" for the kind or colour of no object."""
        answers: Any = self.world.answers
        chosen = {key: values.argmax(-1).tolist() for key, values in self._logits(pictures).items()}
        return [{key: answers[key][chosen[key][row]] for key in answers} for row in range(len(pictures))]

    def log_probs(self, pictures: Sequence) -> dict[str, np.ndarray]:
        """Attribute → [N, answers] log-probabilities."""
        return {key: values.log_softmax(dim=-1).cpu().double().numpy() for key, values in self._logits(pictures).items()}

    @torch.no_grad()
    def _logits(self, pictures: Sequence) -> dict[str, torch.Tensor]:
        starts = range(0, len(pictures), self.batch_size)
        parts = [self.net(self.world.batch(pictures[start : start + self.batch_size])) for start in starts]
        return {key: torch.cat([part[key] for part in parts]) for key in self.world.answers} if parts else {}
