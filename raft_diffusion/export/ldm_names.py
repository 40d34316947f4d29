"""The U-Net's layers as the original code of Stable Diffusion names them, which ComfyUI, A1111 and sd-scripts go by.

The inverse of what diffusers does when it reads such a file. Layers are numbered across blocks: one of L layers takes L + 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from raft_core.errors import ModelError

_ENDS: Mapping[str, str] = MappingProxyType(
    {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
)
_RESNET: Mapping[str, str] = MappingProxyType(
    {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
)


def unet_name(module: str, config: Mapping[str, Any]) -> str:
    """``down_blocks.1.attentions.0.proj_in`` as ``input_blocks.4.1.proj_in``.

    Args:
        module: a layer of diffusers' U-Net.
        config: of that U-Net.

    Raises:
        ModelError: the original code has no such layer.
    """
    if module in _ENDS:
        return _ENDS[module]
    layers = config["layers_per_block"]
    parts = module.split(".")
    try:
        if parts[0] == "mid_block":
            _, kind, index, *rest = parts
            return _inside(f"middle_block.{2 * int(index) if kind == 'resnets' else 1}", kind, rest)
        side, block, kind, index, *rest = parts
        within = int(index) if kind in ("resnets", "attentions") else layers
        number = int(block) * (layers + 1) + within
        if side == "down_blocks" and kind == "downsamplers" and rest == ["conv"]:
            return f"input_blocks.{number + 1}.0.op"
        if side == "up_blocks" and kind == "upsamplers" and rest == ["conv"]:
            attends = "CrossAttn" in config["up_block_types"][int(block)]
            return f"output_blocks.{number}.{2 if attends else 1}.conv"
        place = {"down_blocks": f"input_blocks.{number + 1}", "up_blocks": f"output_blocks.{number}"}[side]
        return _inside(f"{place}.{'01'[kind == 'attentions']}", kind, rest)
    except (ValueError, KeyError, TypeError, IndexError):
        raise ModelError(f"the original layout of Stable Diffusion has no place for the U-Net's {module}") from None


def _inside(place: str, kind: str, rest: list[str]) -> str:
    inside = ".".join(rest)
    return f"{place}.{_RESNET[inside] if kind == 'resnets' else inside}"
