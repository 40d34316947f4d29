"""A whole model in the original layout of Stable Diffusion, one file with all networks, as ComfyUI and A1111 load it.

The inverse of the conversion by which diffusers reads such files; ``differences`` runs that conversion to prove it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_diffusion.export.ldm_names import unet_name
from raft_diffusion.model.folders import is_xl_unet

State = Mapping[str, torch.Tensor]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
#: Where the text encoders lie: SDXL's two, else one in the layout of OpenAI's CLIP (SD 1.x) or of OpenCLIP (SD 2.x).
XL_CLIP, XL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."

_VAE_ATTENTION: Mapping[str, str] = MappingProxyType(
    {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
)
_OPEN_CLIP_ENDS: Mapping[str, str] = MappingProxyType(
    {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
)
_OPEN_CLIP_LAYER: Mapping[str, str] = MappingProxyType(
    {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
)
_QKV = ("q_proj", "k_proj", "v_proj")


def text_prefixes(pipe: Any) -> dict[str, str]:
    """text encoder → where its tensors lie in the file."""
    if is_xl_unet(pipe.unet.config):
        return {"text_encoder": XL_CLIP, "text_encoder_2": XL_OPEN_CLIP}
    # OpenAI's CLIP was trained with a quick approximation of GELU, OpenCLIP's without.
    return {"text_encoder": OPEN_CLIP if pipe.text_encoder.config.hidden_act == "gelu" else CLIP}


def to_ldm(states: Mapping[str, State], pipe: Any) -> dict[str, torch.Tensor]:
    """All networks' tensors by their names in the file.

    Args:
        states: unet, vae and the text encoders by their names in diffusers and transformers.
        pipe: the pipeline, whose configurations tell the layout.

    Raises:
        ModelError: a layer that the original layout has no place for.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, value in states["unet"].items():
        module, _, leaf = name.rpartition(".")
        tensors[f"{UNET}{unet_name(module, pipe.unet.config)}.{leaf}"] = value
    levels = len(pipe.vae.config.block_out_channels)
    for name, value in states["vae"].items():
        tensors[VAE + vae_name(name, levels)] = _as_convolution(name, value)
    for encoder, prefix in text_prefixes(pipe).items():
        plain = {name.removeprefix("text_model."): value for name, value in states[encoder].items()}
        if prefix in (CLIP, XL_CLIP):
            tensors |= {f"{prefix}text_model.{name}": value for name, value in plain.items()}
        else:
            tensors |= {prefix + name: value for name, value in open_clip_tensors(plain).items()}
    return {name: value.contiguous() for name, value in tensors.items()}


def vae_name(name: str, levels: int) -> str:
    """A tensor of the autoencoder by its original name; up blocks are counted from the other end."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda f: f"up.{levels - 1 - int(f[1])}.block.{f[2]}", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda f: f"up.{levels - 1 - int(f[1])}.upsample", name)
    found = re.fullmatch(r"(.*)mid_block\.attentions\.0\.(.+)\.(weight|bias)", name)
    if found and found[2] in _VAE_ATTENTION:
        return f"{found[1]}mid.attn_1.{_VAE_ATTENTION[found[2]]}.{found[3]}"
    return name


def _as_convolution(name: str, value: torch.Tensor) -> torch.Tensor:
    """The autoencoder's attention is of 1×1 convolutions in the original code, of linear layers in diffusers."""
    return value[:, :, None, None] if "mid_block.attentions" in name and value.ndim == 2 else value


def open_clip_tensors(plain: State) -> dict[str, torch.Tensor]:
    """A text encoder of transformers by the names of OpenCLIP, in which q, k and v are one matrix.

    Args:
        plain: its tensors, without ``text_model.`` before their names.

    Raises:
        ModelError: a layer that OpenCLIP does not have.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, value in plain.items():
        if name in _OPEN_CLIP_ENDS:
            tensors[_OPEN_CLIP_ENDS[name]] = value
            continue
        if name == "text_projection.weight":
            tensors["text_projection"] = value.T
            continue
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        block = f"transformer.resblocks.{found[1]}" if found else ""
        if found and found[2] in _OPEN_CLIP_LAYER:
            tensors[f"{block}.{_OPEN_CLIP_LAYER[found[2]]}.{found[3]}"] = value
        elif found and found[2] == "self_attn.q_proj":
            parts = [plain[name.replace("q_proj", part)] for part in _QKV]
            tensors[f"{block}.attn.in_proj_{found[3]}"] = torch.cat(parts)
        elif not (found and found[2] in ("self_attn.k_proj", "self_attn.v_proj")):
            raise ModelError(f"the layout of OpenCLIP has no place for the text encoder's {name}")
    return tensors


def differences(tensors: State, states: Mapping[str, State], pipe: Any) -> list[str]:
    """What diffusers would read otherwise than it was: tensors by ``network.name``; empty where the file is right."""
    from diffusers.loaders import single_file_utils as reading

    def text(encoder: str, prefix: str) -> Mapping[str, torch.Tensor]:
        part = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        if prefix in (CLIP, XL_CLIP):
            return reading.convert_ldm_clip_checkpoint(part)
        return reading.convert_open_clip_checkpoint(getattr(pipe, encoder), part, prefix=prefix)

    read = {
        "unet": reading.convert_ldm_unet_checkpoint(dict(tensors), pipe.unet.config),
        "vae": reading.convert_ldm_vae_checkpoint(dict(tensors), pipe.vae.config),
        **{encoder: text(encoder, prefix) for encoder, prefix in text_prefixes(pipe).items()},
    }
    found = []
    for network, state in states.items():
        there = {name.removeprefix("text_model."): value for name, value in read[network].items()}
        expected = {name.removeprefix("text_model."): value for name, value in state.items()}
        found += [f"{network}.{name}" for name in expected if name not in there or not torch.equal(there[name], expected[name])]
        found += [f"{network}.{name}" for name in there if name not in expected]
    return found
