"""The emoji's gold judge: does a picture show its caption? A judge, never a reward."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from raft_diffusion.world.emoji.captions import parse_caption
from raft_diffusion.world.emoji.judge_net import ANSWERS, judge_input, load_judge

BUNDLED = Path(__file__).parents[2] / "bundled" / "emoji-judge"


class GoldJudge:
    """1.0 where every attribute that the caption mentions is right in the picture, 0.0 where one is not.

    A picture without a well-formed object is wrong whatever the caption says, and so is a tint that the caption does not say.
    Captions that are not of this world are not scored (NaN).
    """

    name = "gold"
    higher_is_better = True

    def __init__(self, folder: str | Path | None = None, batch_size: int = 64):
        """Loads the judge.

        Args:
            folder: with judge.safetensors; the bundled judge if None.
            batch_size: pictures per forward pass.
        """
        self.batch_size = batch_size
        self.net = load_judge(Path(folder) if folder else BUNDLED)

    def __call__(self, samples: Sequence) -> np.ndarray:
        """Verdicts [N] on samples that have `.output` (a PIL image) and `.prompt.text`."""
        asked = [parse_caption(sample.prompt.text) for sample in samples]
        seen = self.attributes([sample.output for sample in samples])
        return np.array(
            [
                float(all(shown[key] == value for key, value in said.items())) if said else np.nan
                for said, shown in zip(asked, seen, strict=True)
            ]
        )

    @torch.no_grad()
    def attributes(self, pictures: Sequence) -> list[dict[str, str]]:
        """What each PIL picture shows: one answer per attribute, "none" for the tint or kind of no object."""
        shown: list[dict[str, str]] = []
        for start in range(0, len(pictures), self.batch_size):
            logits = self.net(judge_input(pictures[start : start + self.batch_size]))
            answers = {key: value.argmax(-1).tolist() for key, value in logits.items()}
            shown += [{k: ANSWERS[k][answers[k][row]] for k in ANSWERS} for row in range(len(answers["object"]))]
        return shown
