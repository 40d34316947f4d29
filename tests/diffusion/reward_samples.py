"""Pictures of noise and samples that hold them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from raft_core.types import Prompt, Request, Sample


def picture(seed: int, width: int = 48, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def samples_of(texts, images=None):
    images = images or [picture(i) for i in range(len(texts))]
    return [
        Sample(Request(Prompt(text), i, i), output=image) for i, (text, image) in enumerate(zip(texts, images, strict=True))
    ]
