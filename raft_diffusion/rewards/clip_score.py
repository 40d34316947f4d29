"""How well a picture fits its prompt, by any CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_diffusion.rewards.clip import ClipSource
from raft_diffusion.rewards.cosine import CosineOfClip
from raft_diffusion.rewards.pictures import bad_pictures_unscored


class ClipScore:
    """100 × cosine between the CLIP embeddings of the picture and of its prompt.

    The prompt is cut at the model's context (77 tokens for most). Scores of different CLIPs are not comparable.

    Args:
        model: an open_clip name; a folder in the layout of open_clip or transformers; ``bundled:NAME``; on the Hub
            ``hf-hub:OWNER/NAME`` (open_clip) or ``transformers:OWNER/NAME``.
        pretrained: for a name, open_clip's weight tag or a weight file; a folder here stands for the model as well.
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
        device: ``auto`` (this process's accelerator if there is one), ``cpu``, ``cuda`` or ``cuda:N``. The CLIP goes there
            to score and sleeps on the CPU.

    Source: CLIPScore (2104.08718). Differs: factor 100 in place of 2.5, negative cosines are kept.
    """

    def __init__(
        self,
        model: str = "ViT-L-14",
        pretrained: str = "openai",
        *,
        name: str = "clip_score",
        batch_size: int = 64,
        device: str = "auto",
    ):
        self.source = ClipSource.of(model, pretrained)
        self._cosine = CosineOfClip(lambda: self.source, batch_size, device)
        self.info = RewardInfo(name=name, scale="100 × cosine", batch_size=batch_size, gpu=device != "cpu")

    def check(self) -> list[str]:
        return self.source.check()

    def load(self) -> None:
        """Load the CLIP, or take the one that another reward has loaded."""
        self._cosine.load()

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        self._cosine.sleep()

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return 100 * self._cosine(samples)
