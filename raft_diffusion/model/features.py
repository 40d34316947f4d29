"""Features of pictures by which diversity is measured, without another model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SIDE = 16


def pixel_features(pictures: Sequence[Any]) -> np.ndarray:
    """[N, 3·16² + 1] float32 unit vectors: each picture shrunk to 16×16, its own mean taken off.

    Two pictures are close when their layout and colours agree, whatever their brightness. A last, constant element keeps a
    grey picture, which has nothing left, from being undefined; such pictures are all the same.
    """
    rows = []
    for picture in pictures:
        pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), _box()), dtype=np.float32) / 255
        centred = (pixels - pixels.mean()).ravel()
        rows.append(np.append(centred, np.float32(1e-3)))
    features = np.stack(rows)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def _box() -> Any:
    from PIL import Image

    return Image.Resampling.BOX
