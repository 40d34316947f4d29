"""What rewards that are one CLIP have in common: loaded once, asleep between rounds, the cosine of picture and prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.machine.devices import resolve_device
from raft_core.types import Sample
from raft_diffusion.rewards.clip import Clip, ClipSource, load_clip
from raft_diffusion.rewards.pictures import pictures


class CosineOfClip:
    """The cosine between a picture and its prompt, by a CLIP that is loaded when it is first needed.

    Args:
        find: says which CLIP; called once, and may download it.
        batch_size: pictures per forward pass.
        device: where to score; the CLIP sleeps on the CPU.
    """

    def __init__(self, find: Callable[[], ClipSource], batch_size: int, device: str):
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, but must be at least 1")
        self.find = find
        self.batch_size = batch_size
        self.device = device
        self._clip: Clip | None = None

    def load(self) -> Clip:
        """The CLIP: loaded now, or the one that this or another reward has loaded."""
        resolve_device(self.device)
        self._clip = self._clip or load_clip(self.find())
        return self._clip

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._clip is not None:
            self._clip.sleep()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] cosines, float64."""
        clip, device = self.load(), resolve_device(self.device)
        images = clip.images(pictures(samples), device, self.batch_size)  # [N, D]
        texts = clip.texts([sample.prompt.text for sample in samples], device, self.batch_size)  # [N, D]
        return (images * texts).sum(dim=1).cpu().double().numpy()
