"""True architectures with random weights, written as folders: nothing is downloaded, and arithmetic costs what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

ImageModel = Literal["sd15", "sdxl"]
TextModel = Literal["0.5B", "1.5B"]

CLIP_WORDS = 49408
SDXL_UNET: Mapping[str, Any] = MappingProxyType(
    {
        "sample_size": 128,
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
    }
)
#: Width, layers, heads, heads of keys, width of the feed-forward part.
QWEN: Mapping[TextModel, tuple[int, int, int, int, int]] = MappingProxyType(
    {"0.5B": (896, 24, 14, 2, 4864), "1.5B": (1536, 28, 12, 2, 8960)}
)
QWEN_WORDS = 151936


def write_image_model(folder: Path, kind: ImageModel, device: torch.device) -> Path:
    """Write a diffusers pipeline in half precision; made on the device, where random numbers come fast."""
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    blocks: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    xl = kind == "sdxl"
    torch.manual_seed(0)
    with device:
        unet = UNet2DConditionModel(**(SDXL_UNET if xl else {"sample_size": 64, "cross_attention_dim": 768}))
        vae = AutoencoderKL(**blocks, latent_channels=4, sample_size=1024 if xl else 512, force_upcast=xl)
        parts: dict[str, Any] = {"unet": unet, "vae": vae, "text_encoder": _clip_text(768, 12, 12, "quick_gelu")}
        if xl:
            parts["text_encoder_2"] = _clip_text(1280, 32, 20, "gelu", projected=True)
    parts = {name: module.half().eval() for name, module in parts.items()}
    parts |= {"scheduler": DDIMScheduler(**noise, set_alpha_to_one=False, steps_offset=1), "tokenizer": clip_tokenizer()}
    if xl:
        pipe = StableDiffusionXLPipeline(**parts, tokenizer_2=clip_tokenizer())
    else:
        none = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
        pipe = StableDiffusionPipeline(**parts, **none, requires_safety_checker=False)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def clip_tokenizer() -> Any:
    """CLIP's tokenizer without merges: one token per byte."""
    from raft_diffusion.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 77
    return tokenizer


def _clip_text(width: int, layers: int, heads: int, act: str, *, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    tokens: dict[str, Any] = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CLIPTextConfig(
        **tokens,
        vocab_size=CLIP_WORDS,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        hidden_act=act,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def write_text_model(folder: Path, kind: TextModel, device: torch.device) -> Path:
    """Write a Qwen 2.5 in bfloat16, with a tokenizer of one token per byte."""
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from raft_text.model.loading import quiet
    from raft_text.testing import tiny_tokenizer

    width, layers, heads, key_heads, inner = QWEN[kind]
    tokenizer = tiny_tokenizer(context=4096)
    config = Qwen2Config(
        vocab_size=QWEN_WORDS,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    with device, quiet():
        Qwen2ForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class RandomClip:
    """The image tower of CLIP ViT-L/14 with random weights, whose first feature is the score: what a CLIP reward computes.

    Args:
        device: where it scores.
        tiny: one layer for a test.
    """

    def __init__(self, device: torch.device, *, tiny: bool = False):
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        from raft_core.protocols import RewardInfo

        size: dict[str, Any] = {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        }
        if tiny:
            size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        self.info = RewardInfo("random_clip", batch_size=32)
        self.dtype = torch.float32 if device.type == "cpu" else torch.float16
        torch.manual_seed(0)
        with device:
            config = CLIPVisionConfig(**size, patch_size=14, image_size=224, projection_dim=8)
            self.tower = CLIPVisionModelWithProjection(config).to(self.dtype).eval()

    @torch.no_grad()
    def of_pictures(self, pictures: list[Any]) -> torch.Tensor:
        """[N] scores of PIL pictures, on the CPU."""
        import numpy as np

        small = [np.asarray(picture.convert("RGB").resize((224, 224))) for picture in pictures]
        pixels = torch.from_numpy(np.stack(small)).to(self.tower.device).permute(0, 3, 1, 2).to(self.dtype) / 127.5 - 1
        return self.tower(pixel_values=pixels).image_embeds[:, 0].float().cpu()

    def __call__(self, samples: Any) -> list[float]:
        return self.of_pictures([sample.output for sample in samples]).tolist()
