"""Pictures that were made elsewhere, as latents that a model is trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from raft_core.store.tensors import hexdigest

if TYPE_CHECKING:
    from raft_diffusion.model.engine import Engine


def fitted(picture: Any, width: int, height: int) -> Any:
    """A picture in the size that is trained at: scaled until it covers it, its middle cut out, RGB."""
    from PIL import Image, ImageOps

    if picture.size == (width, height) and picture.mode == "RGB":
        return picture
    return ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS)


def latent_space(vae: Any) -> str:
    """32 hex digits, the same for autoencoders with the same weights and the same scale, in whichever precision they are."""
    scales = {
        name: getattr(vae.config, name, None) for name in ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
    }
    weights = ((name, tensor.half()) for name, tensor in vae.state_dict().items())
    return hexdigest(weights, json.dumps(scales))[:32]


@torch.no_grad()
def encoded(engine: Engine, pictures: Sequence[Any]) -> torch.Tensor:
    """[B, C, h, w] float32 latents of pictures of one size, on the CPU; the likeliest, so that they are the same every time.

    The inverse of what is done to latents before they are decoded: shift and scale, or mean and deviation of each channel.
    """
    vae = engine.pipe.vae
    config = vae.config
    with engine.place("vae"):
        pixels = engine.pipe.image_processor.preprocess(list(pictures)).to(engine.device, vae.dtype)
        latents = vae.encode(pixels).latent_dist.mode().float()
    if getattr(config, "latents_mean", None) is not None and config.latents_std is not None:
        mean, std = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
        latents = (latents - mean) / std
    latents = latents - (getattr(config, "shift_factor", None) or 0.0)
    return (latents * config.scaling_factor).cpu()
