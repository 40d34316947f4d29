"""Measures of the pixels alone: how colourful, how sharp, how contrasty. No model, no prompt; toys, vetoes and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_diffusion.rewards.pictures import bad_pictures_unscored, pictures

if TYPE_CHECKING:
    from PIL.Image import Image

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def luma(image: Image) -> np.ndarray:
    """[H, W] brightness of an RGB picture as sRGB encodes it, 0–255, float64, not rounded."""
    return np.asarray(image, dtype=np.float64) @ np.array(LUMA)


def colorfulness(image: Image) -> float:
    """√(σ²_rg + σ²_yb) + 0.3 √(μ²_rg + μ²_yb) of an RGB picture, with rg = R − G, yb = (R + G)/2 − B in levels of 255.

    0 for greyscale; about 15 slightly, 45 averagely, 80 highly and more than 100 extremely colourful.

    Source: Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", section 5.
    """
    red, green, blue = np.moveaxis(np.asarray(image, dtype=np.float64), -1, 0)  # each [H, W]
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def sharpness(image: Image) -> float:
    """Variance over the pixels of the Laplacian of brightness, in levels of 255 squared; 0 for a blank picture.

    The Laplacian is that of four neighbours, the picture mirrored at its border's pixels. Depends on the resolution.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy". Differs from cv2.Laplacian(gray).var()
    only in that brightness is not rounded first.
    """
    from scipy.ndimage import laplace

    return float(laplace(luma(image), mode="mirror").var())


def contrast(image: Image) -> float:
    """Root mean square of brightness around its mean, brightness from 0 to 1: 0 for a blank picture, at most 0.5.

    Source: Peli 1990, "Contrast in complex images", eq. 2.
    """
    return float(luma(image).std() / 255)


class Colorfulness:
    """How colourful a picture is, by Hasler and Süsstrunk. Noise of pure colours is its optimum.

    Args:
        name: column in the store and label in the report.
    """

    def __init__(self, name: str = "colorfulness"):
        self.info = RewardInfo(name=name, scale="0 = grey, 45 = average, above 100 = extreme")

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([colorfulness(image) for image in pictures(samples)])


class Sharpness:
    """How much fine detail a picture has: the variance of its Laplacian. Noise is its optimum.

    Args:
        name: column in the store and label in the report.
    """

    def __init__(self, name: str = "sharpness"):
        self.info = RewardInfo(name=name, scale="variance of the Laplacian, levels of 255 squared")

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([sharpness(image) for image in pictures(samples)])


class Contrast:
    """How far brightness varies within a picture. Pure black beside pure white is its optimum.

    Args:
        name: column in the store and label in the report.
    """

    def __init__(self, name: str = "contrast"):
        self.info = RewardInfo(name=name, scale="RMS contrast, 0–0.5")

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([contrast(image) for image in pictures(samples)])
