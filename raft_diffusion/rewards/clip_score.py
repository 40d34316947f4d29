"""How well a picture fits its prompt, by any CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.devices import resolve_device
from raft_core.errors import ConfigError
from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_diffusion.rewards.clip import Clip, ClipSource, load_clip
from raft_diffusion.rewards.pictures import bad_pictures_unscored, pictures


class ClipScore:
    """100 × cosine between the CLIP embeddings of the picture and of its prompt.

    The prompt is cut at the model's context (77 tokens for most). Scores of different CLIPs are not comparable.

    Args:
        model: an open_clip name, a folder in open_clip's layout, ``bundled:NAME`` or ``hf-hub:OWNER/NAME``.
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
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, but must be at least 1")
        self.info = RewardInfo(name=name, scale="100 × cosine", batch_size=batch_size, gpu=device != "cpu")
        self.source = ClipSource.of(model, pretrained)
        self.batch_size = batch_size
        self.device = device
        self._clip: Clip | None = None

    def check(self) -> list[str]:
        return self.source.check()

    def load(self) -> None:
        """Load the CLIP, or take the one that another reward has loaded."""
        resolve_device(self.device)
        self._clip = self._clip or load_clip(self.source)

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._clip is not None:
            self._clip.sleep()

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        clip = self._clip = self._clip or load_clip(self.source)
        device = resolve_device(self.device)
        images = clip.images(pictures(samples), device, self.batch_size)  # [N, D]
        texts = clip.texts([sample.prompt.text for sample in samples], device, self.batch_size)  # [N, D]
        return 100 * (images * texts).sum(dim=1).double().numpy()
