"""The gold judge of the bundled world as a number without steps: how sure it is that the picture shows its caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raft_core.errors import ModelError
from raft_core.protocols import RewardInfo
from raft_core.types import Sample

if TYPE_CHECKING:
    from raft_diffusion.world.judge_net import JudgeNet

FOLDER = Path(__file__).parents[1] / "bundled" / "shapes-judge"
WEIGHTS = "judge.safetensors"
FLOOR = -8.0  # nats: beyond it the classifier's doubt means nothing, and one attribute would outweigh all others


class GoldScore:
    """Mean log-probability of what a caption of the bundled world says, by its gold judge: 0 at best, −8 at worst.

    The source of synthetic preferences, for which right or wrong alone would be too coarse.

    Args:
        folder: with the judge's weights; null = the bundled ones.
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
    """

    def __init__(self, folder: str | None = None, *, name: str = "gold_score", batch_size: int = 64):
        self.info = RewardInfo(name=name, scale="mean log-probability of the caption's attributes, nats", batch_size=batch_size)
        self.folder = Path(folder).expanduser() if folder else FOLDER
        self._net: JudgeNet | None = None

    def check(self) -> list[str]:
        return [] if (self.folder / WEIGHTS).is_file() else [f"there is no judge in {self.folder}: {WEIGHTS} is missing"]

    def load(self) -> None:
        """Load the classifier.

        Raises:
            ModelError: there is none.
        """
        if self._net is None:
            if mistakes := self.check():
                raise ModelError(mistakes[0])
            from raft_diffusion.world.judge_net import load_judge

            self._net = load_judge(self.folder)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] nats; NaN for captions of another world."""
        self.load()
        assert self._net is not None
        import torch

        from raft_diffusion.rewards.pictures import pictures
        from raft_diffusion.world.captions import parse_caption
        from raft_diffusion.world.judge_net import ANSWERS, judge_input

        with torch.no_grad():
            logits = self._net(judge_input(pictures(samples)))
        log_probs = {key: values.log_softmax(dim=-1).clamp(min=FLOOR).double().numpy() for key, values in logits.items()}
        scores = np.full(len(samples), np.nan)
        for row, sample in enumerate(samples):
            said = parse_caption(sample.prompt.text)
            if said:
                scores[row] = np.mean([log_probs[key][row, ANSWERS[key].index(value)] for key, value in said.items()])
        return scores
