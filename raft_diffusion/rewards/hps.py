"""What people prefer, by HPS v2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_diffusion.rewards.clip import ClipSource, model_mistakes
from raft_diffusion.rewards.cosine import CosineOfClip
from raft_diffusion.rewards.pictures import bad_pictures_unscored
from raft_diffusion.rewards.weights import weight_file, weight_mistakes

Version = Literal["v2.0", "v2.1"]
WEIGHTS: Mapping[str, str] = {
    "v2.0": "hf-hub:xswu/HPSv2/HPS_v2_compressed.pt",
    "v2.1": "hf-hub:xswu/HPSv2/HPS_v2.1_compressed.pt",
}


class HpsV2:
    """Human Preference Score v2: the cosine of a ViT-H-14 that was fine-tuned on 800,000 choices between pictures.

    The whole picture is seen: its longest side is fitted to the model's 224 pixels and the rest is black; nothing is cropped.
    v2.0 and v2.1 are not comparable. Compare within a prompt; reports print the score times 100.

    Args:
        version: which of the published weights.
        weights: null for the published file, downloaded from the Hub at first use (2 GB); ``hf-hub:OWNER/NAME/FILE``; or a
            file in its layout, ``.pt`` or ``.safetensors``.
        model: the architecture that the weights fit, an open_clip name.
        name: column in the store and label in the report; null = ``hps_v2_0`` or ``hps_v2_1``.
        batch_size: pictures per forward pass.
        device: ``auto`` (this process's accelerator if there is one), ``cpu``, ``cuda`` or ``cuda:N``. The CLIP goes there
            to score and sleeps on the CPU.

    Source: HPS v2 (2306.09341) and its released code.
    """

    def __init__(
        self,
        version: Version = "v2.1",
        weights: str | None = None,
        model: str = "ViT-H-14",
        *,
        name: str | None = None,
        batch_size: int = 32,
        device: str = "auto",
    ):
        if version not in WEIGHTS:
            raise ConfigError(f"version is {version!r}, but the published weights are 'v2.0' and 'v2.1'")
        self.version: Version = version
        self.weights = weights or WEIGHTS[version]
        self.model = model
        self._cosine = CosineOfClip(self._source, batch_size, device)
        self.info = RewardInfo(
            name=name or f"hps_{version.replace('.', '_')}",
            scale=f"cosine of HPS {version}, about 0.2–0.35",
            batch_size=batch_size,
            gpu=device != "cpu",
        )

    def check(self) -> list[str]:
        return weight_mistakes(self.weights) + model_mistakes(self.model)

    def load(self) -> None:
        """Load the CLIP, or take the one that another reward has loaded."""
        self._cosine.load()

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        self._cosine.sleep()

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return self._cosine(samples)

    def _source(self) -> ClipSource:
        return ClipSource(self.model, str(weight_file(self.weights)), resize="longest")
