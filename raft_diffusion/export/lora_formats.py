"""How the world spells a LoRA: diffusers' names, and kohya's for ComfyUI and A1111."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from raft_diffusion.export.ldm_names import unet_name
from raft_diffusion.model.folders import is_xl_unet
from raft_diffusion.model.lora_file import Factors


def public_name(layer: str) -> str:
    """The layer as files name it: text encoders with ``text_model``, which newer versions of transformers have dropped."""
    network, module = layer.split(".", 1)
    inside = network == "unet" or module.startswith(("text_model.", "text_projection"))
    return f"{network}.{'' if inside else 'text_model.'}{module}"


def kohya_name(layer: str, unet: Mapping[str, Any]) -> str:
    """``unet.mid_block.attn`` as ``lora_unet_mid_block_attn``, for the U-Net of this configuration.

    sd-scripts names layers as they are called in the network that it trains: for SD 1.x and 2.x that of diffusers, for SDXL the
    original one (``lora_unet_middle_block_1…``), and the text encoders te, or te1 and te2 where there are two.

    Source: kohya-ss/sd-scripts, networks/lora.py, ``LoRANetwork``; library/sdxl_original_unet.py.
    """
    network, module = public_name(layer).split(".", 1)
    xl = is_xl_unet(unet)
    if network == "unet":
        prefix, module = "lora_unet", unet_name(module, unet) if xl else module
    else:
        prefix = {"text_encoder": "lora_te1" if xl else "lora_te", "text_encoder_2": "lora_te2"}[network]
    return f"{prefix}_{module.replace('.', '_')}"


def to_diffusers(update: Mapping[str, Factors]) -> dict[str, torch.Tensor]:
    """What ``pipe.load_lora_weights`` takes. This spelling knows no alpha, so it is multiplied into the up matrix."""
    tensors = {}
    for layer, part in update.items():
        tensors[public_name(layer) + ".lora_A.weight"] = part.down.contiguous()
        tensors[public_name(layer) + ".lora_B.weight"] = (part.up * part.scale).contiguous()
    return tensors


def to_kohya(update: Mapping[str, Factors], unet: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What ComfyUI, A1111 and their kin take, for the U-Net of this configuration."""
    tensors = {}
    for layer, part in update.items():
        name = kohya_name(layer, unet)
        tensors[name + ".lora_down.weight"] = part.down.contiguous()
        tensors[name + ".lora_up.weight"] = part.up.contiguous()
        tensors[name + ".alpha"] = torch.tensor(part.effective_alpha)
    return tensors
