"""Pipelines of diffusers of a few thousand random weights, one for each family, with tokenizers of single bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raft_core.machine.torchvision import ensure_importable

ensure_importable()

import torch  # noqa: E402 - after the above
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler  # noqa: E402

WIDTH = 32  # of text encoders
CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
PARTS_CHAT = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"


def tokenizer(limit: int = 64, chat: str | None = None, side: str = "right") -> Any:
    """One token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *letters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=limit,
        padding_side=side,
    )
    if chat:
        found.chat_template = chat
    return found


SIZE = 3 + 256  # of the vocabulary


def t5(width: int = WIDTH) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=SIZE, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).eval()


def umt5() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(vocab_size=SIZE, d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return UMT5EncoderModel(config).eval()


def llama_like(kind: str, head: bool = False, **more: Any) -> Any:
    """A decoder of transformers that pipelines read prompts with: Gemma2 or Qwen3."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=SIZE,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **more,
    )
    return getattr(transformers, f"{kind}{'ForCausalLM' if head else 'Model'}")(config).eval()


def clip(projection: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=SIZE,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def vae(channels: int, levels: int = 2) -> Any:
    blocks: dict[str, Any] = {
        "block_out_channels": (8,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(
        **blocks,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    ).eval()


def sd3() -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=WIDTH * 2,
        pooled_projection_dim=2 * WIDTH,
        out_channels=4,
        pos_embed_max_size=16,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4),
        text_encoder=clip(True),
        tokenizer=tokenizer(32),
        text_encoder_2=clip(True),
        tokenizer_2=tokenizer(32),
        text_encoder_3=t5(2 * WIDTH),
        tokenizer_3=tokenizer(),
    )


def flux(guidance: bool = False) -> Any:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance,
        axes_dims_rope=[4, 4, 8],
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae(4),
        text_encoder=clip(False),
        tokenizer=tokenizer(32),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(),
    )


def flux_guided() -> Any:
    return flux(guidance=True)


def chroma() -> Any:
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    transformer = ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return ChromaPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4),
        text_encoder=t5(),
        tokenizer=tokenizer(),
    )


def _flux2_parts(width: int, guidance: bool) -> dict[str, Any]:
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

    blocks: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return {
        "transformer": Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=width,
            axes_dims_rope=[4, 4, 4, 4],
            guidance_embeds=guidance,
        ),
        "vae": AutoencoderKLFlux2(
            **blocks, latent_channels=4, norm_num_groups=4, sample_size=32, use_quant_conv=False, use_post_quant_conv=False
        ).eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


def flux2() -> Any:
    from diffusers import Flux2Pipeline
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": SIZE,
            "hidden_size": 16,
            "intermediate_size": 16,
            "max_position_embeddings": 512,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "num_key_value_heads": 2,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": 30,
            "patch_size": 6,
            "num_channels": 3,
        },
        image_token_index=1,
    )
    return Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(config).eval(),
        tokenizer=tokenizer(chat=PARTS_CHAT),
        **_flux2_parts(16, guidance=True),
    )


def flux2_klein() -> Any:
    from diffusers import Flux2KleinPipeline

    encoder = llama_like("Qwen3", head=True)
    return Flux2KleinPipeline(text_encoder=encoder, tokenizer=tokenizer(chat=CHAT), **_flux2_parts(WIDTH, guidance=False))


def qwen_image() -> Any:
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    decoder = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.0, 1.1, 1.2, 1.3],
    ).eval()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": SIZE,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
        vision_start_token_id=5,
        vision_end_token_id=6,
        image_token_id=7,
        video_token_id=8,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    return QwenImagePipeline(
        transformer=transformer,
        scheduler=scheduler,
        vae=decoder,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer(1024),
    )


def sana() -> Any:
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    transformer = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=16,
        timestep_scale=0.5,
    )
    decoder = AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    ).eval()
    return SanaPipeline(
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        vae=decoder,
        text_encoder=llama_like("Gemma2"),
        tokenizer=tokenizer(),
    )


def z_image() -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        qk_norm=True,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    return ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4),
        text_encoder=llama_like("Qwen3"),
        tokenizer=tokenizer(chat=CHAT),
    )


def lumina2() -> Any:
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    transformer = Lumina2Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        scaling_factor=1.0,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(256, 64, 64),
        cap_feat_dim=WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae(4, levels=4),  # the pipeline takes 8 pixels per latent for granted
        text_encoder=llama_like("Gemma2"),
        tokenizer=tokenizer(),
    )


def pixart_sigma() -> Any:
    from diffusers import DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
    )
    return PixArtSigmaPipeline(
        transformer=transformer,
        scheduler=DDIMScheduler(clip_sample=False),
        vae=vae(4),
        text_encoder=t5(),
        tokenizer=tokenizer(),
    )


def wan() -> Any:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    decoder = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.0, 1.1, 1.2, 1.3],
        scale_factor_spatial=2,
        scale_factor_temporal=2,
    ).eval()
    return WanPipeline(
        transformer=transformer,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        vae=decoder,
        text_encoder=umt5(),
        tokenizer=tokenizer(),
        transformer_2=None,
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "sd3": sd3,
    "flux": flux,
    "flux_guided": flux_guided,
    "chroma": chroma,
    "flux2": flux2,
    "flux2_klein": flux2_klein,
    "qwen_image": qwen_image,
    "sana": sana,
    "z_image": z_image,
    "lumina2": lumina2,
    "pixart_sigma": pixart_sigma,
    "wan": wan,
}

#: Arguments of the pipelines' calls that keep tiny text short.
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{family: {"max_sequence_length": 40} for family in BUILDERS},
    "flux2": {"max_sequence_length": 40, "text_encoder_out_layers": (1,)},
    "flux2_klein": {"max_sequence_length": 64, "text_encoder_out_layers": (1,)},
    "qwen_image": {},
    "sana": {"max_sequence_length": 40, "complex_human_instruction": None},
    "lumina2": {"max_sequence_length": 60, "system_prompt": "draw"},
}

#: Guidance of each, where it is not the pipeline's default.
SAMPLING: dict[str, dict[str, Any]] = {
    **{family: {} for family in BUILDERS},
    "flux_guided": {"guidance_scale": 3.5, "true_cfg_scale": 2.0},
    "qwen_image": {"true_cfg_scale": 4.0},
    "z_image": {"guidance_scale": 3.0},
}

#: What the policy says to plain pipelines besides.
PLAIN: dict[str, dict[str, Any]] = {
    "flux_guided": {"negative_prompt": ""},
    "qwen_image": {"negative_prompt": ""},
    "sana": {"use_resolution_binning": False},
    "pixart_sigma": {"use_resolution_binning": False},
    "wan": {"num_frames": 1, "output_type": "pil"},
}

#: How guidance is turned off in each; a scale that the network is told stays.
UNGUIDED: dict[str, dict[str, Any]] = {
    **{family: {"guidance_scale": 1.0} for family in BUILDERS},
    "flux": {},
    "flux_guided": {"guidance_scale": 3.5, "negative_prompt": None},
    "flux2": {},
    "qwen_image": {"true_cfg_scale": 1.0, "negative_prompt": None},
    "z_image": {"guidance_scale": 0.0},
}


def write(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a family's pipeline, its random weights from ``seed``; returns the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = BUILDERS[family]()
        with torch.no_grad():  # layers that begin at zero would hide what they read
            for parameter in pipe.transformer.parameters():
                if not parameter.any() or not parameter.isfinite().all():
                    parameter.normal_(0, 0.2)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder
