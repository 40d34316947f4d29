"""Configurations of the published U-Nets and text encoders, as far as their layers depend on them; no weights."""

from __future__ import annotations

import torch

_SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "sample_size": 64,
}
UNETS = {
    "sd1": {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {**_SD, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
    },
}
#: (hidden, intermediate, layers, heads) of each text encoder.
_CLIP_L, _CLIP_H, _CLIP_G = (768, 3072, 12, 12), (1024, 4096, 23, 16), (1280, 5120, 32, 20)
TEXT_ENCODERS = {
    "sd1": {"text_encoder": _CLIP_L},
    "sd2": {"text_encoder": _CLIP_H},
    "sdxl": {"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G},
}


def networks(kind):
    """The networks of a published model without weights: name → module on the meta device."""
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    found = {}
    with torch.device("meta"):
        found["unet"] = UNet2DConditionModel(**UNETS[kind])
        for name, (hidden, wide, layers, heads) in TEXT_ENCODERS[kind].items():
            config = CLIPTextConfig(
                hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers, num_attention_heads=heads, vocab_size=9
            )
            found[name] = (CLIPTextModelWithProjection if name.endswith("2") else CLIPTextModel)(config)
    return found
