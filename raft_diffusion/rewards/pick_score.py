"""What people pick, by PickScore."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_diffusion.rewards import hf_clip
from raft_diffusion.rewards.clip import ClipSource
from raft_diffusion.rewards.cosine import CosineOfClip
from raft_diffusion.rewards.pictures import bad_pictures_unscored

MODEL = "transformers:yuvalkirstain/PickScore_v1"
PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"  # of the CLIP that it was trained from, as its authors use it


def preferences(scores: np.ndarray) -> np.ndarray:
    """[…, K] probabilities that each of K pictures of one prompt is the one that is picked, from their scores […, K].

    Source: Pick-a-Pic (2305.01569), section 4: the model is trained by this softmax over two pictures.
    """
    from scipy.special import softmax

    return softmax(np.asarray(scores, dtype=np.float64), axis=-1)


class PickScore:
    """exp(logit_scale) × cosine of a CLIP that was fine-tuned on half a million choices of Pick-a-Pic's users.

    A difference of 1 between two pictures of a prompt means that the better one is picked in 73 % of cases (``preferences``).
    Compare within a prompt: across prompts the level says little.

    Args:
        model: null for the published model, downloaded from the Hub at first use (4 GB); or a CLIP as for ClipScore: a folder
            in the layout of transformers or open_clip, or ``transformers:OWNER/NAME``.
        processor: folder or Hub name of the image processor and tokenizer; null = the model's folder if it holds them, else
            those of LAION's ViT-H-14.
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
        device: ``auto`` (this process's accelerator if there is one), ``cpu``, ``cuda`` or ``cuda:N``. The CLIP goes there
            to score and sleeps on the CPU.

    Source: Pick-a-Pic (2305.01569) and its released code.
    """

    def __init__(
        self,
        model: str | None = None,
        processor: str | None = None,
        *,
        name: str = "pick_score",
        batch_size: int = 32,
        device: str = "auto",
    ):
        self.source = _source(model or MODEL, processor)
        self._cosine = CosineOfClip(lambda: self.source, batch_size, device)
        scale = "exp(logit_scale) × cosine, about 15–25"
        self.info = RewardInfo(name=name, scale=scale, batch_size=batch_size, gpu=device != "cpu")

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
        return self._cosine.load().scale * self._cosine(samples)


def _source(model: str, processor: str | None) -> ClipSource:
    source = ClipSource.parse(model)
    if not source.of_transformers:
        return source
    own = source.folder is not None and not hf_clip.processor_mistakes(source.folder)
    chosen = processor or (None if own else PROCESSOR)
    return ClipSource(source.model, processor=chosen)
