"""File size as a reward: the toy objectives of DDPO, which need no model and show at once whether a set-up learns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.media.image import JPEG_QUALITY, jpeg_kilobytes
from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_diffusion.rewards.pictures import bad_pictures_unscored, pictures


class JpegCompressibility:
    """Minus the kilobytes of the JPEG: rewards smooth, plain pictures. Blank ones are its optimum.

    Args:
        name: column in the store and label in the report.
    """

    def __init__(self, name: str = "jpeg_compressibility"):
        self.info = RewardInfo(name=name, scale=f"−kB as JPEG at quality {JPEG_QUALITY}")

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([-jpeg_kilobytes(image) for image in pictures(samples)])


class JpegIncompressibility:
    """The kilobytes of the JPEG: rewards detail. Noise is its optimum.

    Args:
        name: column in the store and label in the report.
    """

    def __init__(self, name: str = "jpeg_incompressibility"):
        self.info = RewardInfo(name=name, scale=f"kB as JPEG at quality {JPEG_QUALITY}")

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([jpeg_kilobytes(image) for image in pictures(samples)])
