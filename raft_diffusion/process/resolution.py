"""Which picture sizes a model can draw, told from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pixels_per_latent(vae: Mapping[str, Any]) -> int:
    """Pixels along one latent: 2 per level of the VAE but the first."""
    return 2 ** (len(vae["block_out_channels"]) - 1)


def mistakes(sizes: Mapping[str, int | None], vae: Mapping[str, Any], unet: Mapping[str, Any]) -> list[str]:
    """What is wrong with width and height, in words, with the nearest that work.

    A U-Net's halvings set no limit: where one does not come out even, diffusers has the way up take
    the sizes of the way down.
    """
    step = pixels_per_latent(vae)
    found = []
    unset = [f"sampling.{name}" for name, value in sizes.items() if value is None]
    if unset and unet.get("sample_size") is None:
        found.append(f"the model does not say which size it was trained at (sample_size): set {' and '.join(unset)}")
    for name, value in sizes.items():
        if value is not None and value % step:
            below, above = value // step * step, (value // step + 1) * step
            nearest = f"{below} or {above}" if below else str(above)
            found.append(
                f"sampling.{name} is {value}, but this model draws multiples of {step} only "
                f"({step} pixels per latent); use {nearest}"
            )
    return found
