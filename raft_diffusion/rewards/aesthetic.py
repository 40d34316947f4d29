"""How pleasing a picture is, whatever its prompt, by LAION's predictors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.devices import resolve_device
from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_diffusion.rewards.clip import Clip, ClipSource, load_clip
from raft_diffusion.rewards.heads import Head, Version, locate, parse_head, verify
from raft_diffusion.rewards.pictures import bad_pictures_unscored, pictures
from raft_diffusion.rewards.weights import on_hub, read_state

CLIP = "ViT-L-14/openai"  # what both official heads were trained on
SCALES = {"v1": "nominal 0–10, unbounded", "v2": "nominal 1–10, unbounded"}


class Aesthetic:
    """LAION's aesthetic predictor: a small head on the unit-length CLIP embedding of the picture.

    ``v1`` is one linear layer and the reward of the RAFT paper; ``v2`` is five of them, and what most people mean by "aesthetic
    score". Both are linear in the embedding and blind to the prompt, so they can be pleased by pictures of something else.

    Args:
        version: layout of the head.
        weights: None for the published file (4 MB at most, from its authors' GitHub repository, sha256 checked, kept in torch's
            hub cache); a ``.safetensors`` or ``.pth`` file; ``hf-hub:OWNER/NAME/FILE``; or a folder or ``bundled:NAME`` whose
            config.json names its ``weights`` file and its ``clip``.
        clip: the CLIP that the head was trained on, as ``MODEL/TAG``, a folder, ``bundled:NAME`` or ``hf-hub:OWNER/NAME``;
            by default the one that the weights' config.json names, else OpenAI's ViT-L-14.
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
        device: ``auto`` (this process's accelerator if there is one), ``cpu``, ``cuda`` or ``cuda:N``. The CLIP goes there
            to score and sleeps on the CPU.

    Source: LAION-AI/aesthetic-predictor (v1); christophschuhmann/improved-aesthetic-predictor (v2).
    """

    def __init__(
        self,
        version: Version = "v2",
        weights: str | None = None,
        clip: str | None = None,
        *,
        name: str = "aesthetic",
        batch_size: int = 64,
        device: str = "auto",
    ):
        if version not in SCALES:
            raise ConfigError(f"version is {version!r}, but LAION's heads are 'v1' and 'v2'")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, but must be at least 1")
        self.info = RewardInfo(name=name, scale=SCALES[version], batch_size=batch_size, gpu=device != "cpu")
        self.version: Version = version
        self.weights = weights
        self.clip = clip
        self.batch_size = batch_size
        self.device = device
        self._loaded: tuple[Clip, Head] | None = None

    def check(self) -> list[str]:
        if self.weights is None or on_hub(self.weights):
            return ClipSource.parse(self.clip or CLIP).check()
        try:
            file, named = locate(self.weights, self.version)
        except ModelError as error:
            return [str(error)]
        missing = [] if file.is_file() else [f"there is no aesthetic weight file {file}"]
        return missing + ClipSource.parse(self.clip or named or CLIP).check()

    def load(self) -> None:
        """Load the head, and its CLIP or the same one that another reward has loaded."""
        resolve_device(self.device)
        self._loaded = self._loaded or self._load()

    def _load(self) -> tuple[Clip, Head]:
        file, named = locate(self.weights, self.version)
        verify(file, self.version)
        head = parse_head(read_state(file), self.version, file)
        source = ClipSource.parse(self.clip or named or CLIP)
        clip = load_clip(source)
        if head.width != clip.width:
            raise ModelError(
                f"the aesthetic head {file} reads embeddings of width {head.width}, but the CLIP {str(source)!r} makes "
                f"{clip.width}: give the CLIP that the head was trained on as `clip`"
            )
        return clip, head

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._loaded is not None:
            self._loaded[0].sleep()

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        clip, head = self._loaded = self._loaded or self._load()
        embedding = clip.images(pictures(samples), resolve_device(self.device), self.batch_size)  # [N, D]
        return head(embedding).cpu().double().numpy()
