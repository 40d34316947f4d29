"""Stable Diffusions of a few thousand random weights: a test loads, samples, trains and saves the real classes in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

Kind = Literal["sd1", "sd2", "sdxl"]

CONTEXT = 16  # tokens a tiny text encoder takes, start and end included
WIDTH = 32  # of the text encoder, and of the U-Net's cross-attention
SECOND_WIDTH = 64  # of SDXL's second text encoder; its U-Net reads both side by side

_SCHEDULE: Mapping[str, Any] = MappingProxyType(
    {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
)
_DOWN_BLOCKS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "sd1": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "sd2": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "sdxl": ("DownBlock2D", "CrossAttnDownBlock2D"),
    }
)


def tiny_pipeline(folder: Path, kind: Kind = "sd1", *, seed: int = 0) -> Path:
    """Write a random diffusers pipeline: 32×32 pictures by default, 16×16 latents, 4 latent channels, prompts of 14 tokens.

    Args:
        folder: where; made if it does not exist.
        kind: ``sd1`` predicts ε; ``sd2`` predicts v, projects linearly in its attention and reads an OpenCLIP; ``sdxl`` has
            two text encoders, pooled embeddings and time ids, and a VAE that must not run in half precision.
        seed: of the weights; the global generator is left as it was.

    Returns:
        ``folder``.
    """
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "vae": _vae(force_upcast=kind == "sdxl"),
            "unet": _unet(kind),
            "scheduler": DDIMScheduler(
                **_SCHEDULE, prediction_type="v_prediction" if kind == "sd2" else "epsilon", steps_offset=1
            ),
            "tokenizer": tiny_tokenizer(),
            "text_encoder": _text_encoder(act="gelu" if kind == "sd2" else "quick_gelu"),
        }
        if kind == "sdxl":
            second = _text_encoder(act="gelu", width=SECOND_WIDTH, with_projection=True)
            parts |= {"text_encoder_2": second, "tokenizer_2": tiny_tokenizer()}
            pipe = StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=True)
        else:
            parts |= {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
            pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: one token per byte, so that every text tokenises."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CONTEXT)


def _text_encoder(
    *, act: str, width: int = WIDTH, with_projection: bool = False
) -> CLIPTextModel | CLIPTextModelWithProjection:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = tiny_tokenizer()
    # The end token's id matters: CLIP's pooled embedding is read there.
    tokens: dict[str, Any] = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CLIPTextConfig(
        **tokens,
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width,
        projection_dim=width,
        hidden_act=act,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )
    return (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(config).eval()


def _vae(*, force_upcast: bool) -> Any:
    from diffusers import AutoencoderKL

    blocks: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return AutoencoderKL(
        **blocks,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        force_upcast=force_upcast,
    ).eval()


def _unet(kind: Kind) -> Any:
    from diffusers import UNet2DConditionModel

    down = _DOWN_BLOCKS[kind]
    extra: dict[str, Any] = {"attention_head_dim": 2}
    if kind == "sd2":
        extra = {"use_linear_projection": True, "attention_head_dim": (2, 4)}
    if kind == "sdxl":
        extra = {
            "use_linear_projection": True,
            "attention_head_dim": (2, 4),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": SECOND_WIDTH + 6 * 8,
        }
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=down,
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
        cross_attention_dim=WIDTH + SECOND_WIDTH if kind == "sdxl" else WIDTH,
        norm_num_groups=4,
        **extra,
    ).eval()
