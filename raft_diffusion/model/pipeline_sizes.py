"""Which sizes a pipeline can draw, and how much of a prompt it reads, told from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raft_diffusion.model.pipelines import Description

UNLIMITED = 100_000  # tokens; tokenizers without a limit say more


def pixels_per_latent(vae: Mapping[str, Any]) -> int | None:
    """Pixels along one latent, by the layouts of diffusers' autoencoders; None where it cannot be told."""
    if vae.get("scale_factor_spatial"):
        return int(vae["scale_factor_spatial"])
    if "temperal_downsample" in vae:  # as diffusers spells it
        return 2 ** len(vae["temperal_downsample"])
    for name in ("encoder_block_out_channels", "block_out_channels"):
        if isinstance(vae.get(name), (list, tuple)):
            return 2 ** (len(vae[name]) - 1)
    return None


def patch_size(description: Description) -> int:
    """Latents along one token of the denoiser: its patch, or 2 where the pipeline packs 2×2 latents into channels."""
    denoiser, vae = description.configs[description.denoiser], description.configs["vae"]
    latents = vae.get("latent_channels") or vae.get("z_dim")
    channels = denoiser.get("in_channels")
    if latents and channels and channels == 4 * latents:
        return 2
    patch = denoiser.get("patch_size") or denoiser.get("all_patch_size") or 1
    return int(patch[-1]) if isinstance(patch, (list, tuple)) else int(patch)


def mistakes(sizes: Mapping[str, int | None], description: Description) -> list[str]:
    """What is wrong with width and height, in words, with the nearest that work."""
    pixels = pixels_per_latent(description.configs["vae"])
    if pixels is None:
        return []
    step = pixels * patch_size(description)
    found = []
    for name, value in sizes.items():
        if value is not None and value % step:
            below, above = value // step * step, (value // step + 1) * step
            nearest = f"{below} or {above}" if below else str(above)
            found.append(
                f"sampling.{name} is {value}, but {description.pipeline} draws multiples of {step} only ({pixels} pixels per "
                f"latent, {patch_size(description)} latents per token); use {nearest}"
            )
    return found


def visible_text(tokenizer: Any, text: str, room: int | None) -> str:
    """The beginning of ``text`` that a text encoder takes in; all of it when it fits.

    Args:
        tokenizer: of the encoder.
        text: a prompt.
        room: tokens that the pipeline allows; None = the tokenizer's limit.
    """
    limit = tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED else None
    limit = min((value for value in (limit, room) if value is not None), default=None)
    if limit is None or len(tokenizer(text, verbose=False)["input_ids"]) <= limit:
        return text
    if not tokenizer.is_fast:
        return text
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    special = tokenizer.num_special_tokens_to_add()
    ends = [end for _, end in encoded["offset_mapping"]][: max(limit - special, 0)]
    return text[: ends[-1]] if ends else ""
