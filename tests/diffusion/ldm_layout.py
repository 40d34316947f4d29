"""A tiny SD 1.x folder in the original single-file layout, as CompVis named things: the inverse of what diffusers reads."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file

LAYERS = 1  # per block of the tiny U-Net

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def to_single_file(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder of ``tiny_pipeline(…, "sd1")`` by their original names."""
    unet = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder/model.safetensors")
    tensors = {f"model.diffusion_model.{_unet(key)}": value for key, value in unet.items()}
    tensors |= {f"first_stage_model.{_vae(key)}": value for key, value in vae.items()}
    for key, value in text.items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    return {key: value.contiguous() for key, value in tensors.items()}


def unet_name(layer: str, attends: tuple[int, ...] = ()) -> str:
    """A layer of the tiny U-Net by its original name; ``attends``: up blocks with attention, behind which upsamplers come."""
    return _unet(f"{layer}.weight", attends).removesuffix(".weight")


def _unet(key: str, attends: tuple[int, ...] = ()) -> str:
    for name, original in _UNET_ENDS.items():
        if key.startswith(name + "."):
            return original + key[len(name) :]
    if key.startswith("mid_block"):
        _, kind, index, rest = key.split(".", 3)
        place = f"middle_block.{2 * int(index) if kind == 'resnets' else 1}"
        return f"{place}.{_inside(kind, rest)}"
    side, block, kind, index, rest = key.split(".", 4)
    if side == "down_blocks":
        number = 1 + int(block) * (LAYERS + 1) + (LAYERS if kind == "downsamplers" else int(index))
        place = f"input_blocks.{number}"
        if kind == "downsamplers":
            return f"{place}.0.{rest.replace('conv', 'op')}"
    else:
        number = int(block) * (LAYERS + 1) + (LAYERS if kind == "upsamplers" else int(index))
        place = f"output_blocks.{number}"
        if kind == "upsamplers":
            return f"{place}.{2 if int(block) in attends else 1}.{rest}"
    return f"{place}.{0 if kind == 'resnets' else 1}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    if kind != "resnets":
        return rest
    name, _, leaf = rest.rpartition(".")
    return f"{_RESNET[name]}.{leaf}"


def _vae(key: str) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{1 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample", key)
    found = re.fullmatch(r"(.*)mid_block\.attentions\.0\.(.+)\.(weight|bias)", key)
    return f"{found[1]}mid.attn_1.{_VAE_ATTENTION[found[2]]}.{found[3]}" if found else key
