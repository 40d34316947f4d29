"""How much memory a pipeline's weights take in each phase, by its architecture on the meta device: nothing is stored.

A model on this machine is built from its own configuration files. The models of the bundled recipes are written down below, so
that they can be planned before anything is downloaded. Activations come on top: they depend on size and batch, and only a probe
tells them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.model.pipelines import Description
from raft_diffusion.model.transformer_lora import adapted_layers
from raft_diffusion.pipeline_options import PipelineMemory, TransformerLora

#: network → (library, class, configuration where it is not the class's default)
Architecture = Mapping[str, tuple[str, str, Mapping[str, Any]]]

#: Bytes that training keeps per trained parameter: itself, its gradient, and AdamW's two moments, all float32.
TRAINED_BYTES = 16
#: Bytes per frozen parameter that is quantised, scales of the blocks included.
QUANTIZED_BYTES: Mapping[str, float] = MappingProxyType({"nf4": 0.5625, "int8": 1.0, "int8wo": 1.0})
_BYTES: Mapping[str, int] = MappingProxyType({"float32": 4, "float16": 2, "bfloat16": 2, "auto": 2})

#: Phase → what it needs on the device.
_PHASES = {"encoding prompts": "texts", "sampling": "denoiser", "decoding": "vae", "training": "denoiser"}

_T5_XXL = ("transformers", "T5EncoderModel", {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"
})  # fmt: skip
_CLIP_L = ("transformers", "CLIPTextModel", {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12})
_CLIP_G = ("transformers", "CLIPTextModelWithProjection", {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280
})  # fmt: skip
_QWEN3_4B = ("transformers", "Qwen3Model", {
    "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128
})  # fmt: skip
_QWEN_VL_7B = ("transformers", "Qwen2_5_VLForConditionalGeneration", {
    "text_config": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
    },
    "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
})  # fmt: skip
_VAE = ("diffusers", "AutoencoderKL", {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 16,
    "use_quant_conv": False, "use_post_quant_conv": False,
})  # fmt: skip

#: The models of the bundled recipes.
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "stabilityai/stable-diffusion-3.5-medium": {
            "transformer": ("diffusers", "SD3Transformer2DModel", {
                "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 384,
                "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13)),
            }),
            "vae": _VAE, "text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G, "text_encoder_3": _T5_XXL,
        },
        "black-forest-labs/FLUX.1-dev": {
            "transformer": ("diffusers", "FluxTransformer2DModel", {"guidance_embeds": True}),
            "vae": _VAE, "text_encoder": _CLIP_L, "text_encoder_2": _T5_XXL,
        },
        "black-forest-labs/FLUX.2-klein-base-4B": {
            "transformer": ("diffusers", "Flux2Transformer2DModel", {
                "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
                "guidance_embeds": False,
            }),
            "vae": ("diffusers", "AutoencoderKLFlux2", {}), "text_encoder": _QWEN3_4B,
        },
        "Qwen/Qwen-Image": {
            "transformer": ("diffusers", "QwenImageTransformer2DModel", {}),
            "vae": ("diffusers", "AutoencoderKLQwenImage", {}), "text_encoder": _QWEN_VL_7B,
        },
        "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers": {
            "transformer": ("diffusers", "SanaTransformer2DModel", {}),
            "vae": ("diffusers", "AutoencoderDC", {}), "text_encoder": ("transformers", "Gemma2Model", {}),
        },
        "Tongyi-MAI/Z-Image": {
            "transformer": ("diffusers", "ZImageTransformer2DModel", {}),
            "vae": _VAE, "text_encoder": _QWEN3_4B,
        },
    }
)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """Parameters of a pipeline.

    Attributes:
        denoiser: of the denoiser.
        text_encoders: of all of them.
        vae: of the VAE.
        trained: that training changes.
    """

    denoiser: int
    text_encoders: int
    vae: int
    trained: int


def architecture_of(description: Description) -> Architecture:
    """That of a model whose configuration files are here."""
    return {name: (*description.parts[name], config) for name, config in description.configs.items()}


def count(architecture: Architecture, lora: TransformerLora | None) -> Weights:
    """Build the networks on the meta device and count; no number is stored."""
    sizes = {
        name: sum(parameter.numel() for parameter in _built(*entry).parameters())
        for name, entry in architecture.items()
        if name != "transformer"
    }
    denoiser = _built(*architecture["transformer"])
    total = sum(parameter.numel() for parameter in denoiser.parameters())
    if lora is None:
        trained = total
    else:
        layers = [denoiser.get_submodule(name) for name in adapted_layers(denoiser, lora.targets)]
        trained = sum(lora.rank * (layer.in_features + layer.out_features) for layer in layers)
    texts = sum(size for name, size in sizes.items() if name.startswith("text_encoder"))
    return Weights(total, texts, sizes.get("vae", 0), trained)


def _built(library: str, name: str, config: Mapping[str, Any]) -> Any:
    ensure_importable()
    cls = getattr(importlib.import_module(library), name)
    with torch.device("meta"):
        if library == "diffusers":
            return cls.from_config({key: value for key, value in config.items() if not key.startswith("_")})
        return cls(cls.config_class.from_dict(dict(config)))


def phases(weights: Weights, memory: PipelineMemory, dtype: str, *, lora: bool) -> dict[str, float]:
    """Phase → bytes of weights on the device, without activations.

    Args:
        weights: how many there are.
        memory: how they are kept.
        dtype: of the frozen ones.
        lora: whether adapters are trained, and not the denoiser itself.
    """
    memory = memory.resolved
    plain = _BYTES[dtype]
    quantized = memory.quantization != "none"
    kept = QUANTIZED_BYTES.get(memory.quantization or "none", plain)
    sizes = {
        "denoiser": weights.denoiser * (kept if lora else 4),
        "texts": weights.text_encoders * kept,
        "vae": weights.vae * plain,
    }
    stays = {  # what no phase moves away; quantised networks are not moved
        "denoiser": not memory.offload or quantized,
        "texts": memory.text_encoders == "keep" and (not memory.offload or quantized),
        "vae": not memory.offload,
    }
    trained = weights.trained * 4 if lora else 0  # of full fine-tuning the weights themselves
    found: dict[str, float] = {
        phase: sum(size for name, size in sizes.items() if name == network or stays[name]) + trained
        for phase, network in _PHASES.items()
    }
    found["training"] += weights.trained * (TRAINED_BYTES - 4)
    return found


def words(weights: Weights, memory: PipelineMemory, dtype: str, *, lora: bool) -> str:
    """The estimate in one sentence."""
    sizes = phases(weights, memory, dtype, lora=lora)
    parts = ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in sizes.items())
    return (
        f"{weights.denoiser / 1e9:.1f} billion parameters in the denoiser, {weights.trained / 1e6:.1f} million trained, "
        f"{weights.text_encoders / 1e9:.1f} billion in the text encoders; on the device {parts}; activations come on top"
    )
