"""A round of SD 3.5: the toolkit's, and one in plain diffusers and peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu.images import ImageWork, measured_round
from benchmarks.gpu.models import CLIP_WORDS, RandomClip, clip_text, clip_tokenizer
from benchmarks.gpu.phases import Phases, give_back
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer

TARGETS = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")


def write_sd35_medium(folder: Path, device: torch.device, *, tiny: bool = False) -> Path:
    """Write SD 3.5 medium with random weights in bfloat16; of the T5, which reads each prompt once, one thin layer.

    Args:
        tiny: the same pipeline of a few thousand weights, in float32.
    """
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import T5Config, T5EncoderModel

    sizes: dict[str, Any] = {"sample_size": 128, "num_layers": 24, "attention_head_dim": 64, "num_attention_heads": 24}
    sizes |= {"caption_projection_dim": 1536, "joint_attention_dim": 4096, "pooled_projection_dim": 2048}
    sizes |= {"pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm"}
    blocks, texts = (128, 256, 512, 512), ((768, 12, 12), (1280, 32, 20))
    if tiny:
        sizes = {"sample_size": 4, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}
        sizes |= {
            "caption_projection_dim": 16,
            "joint_attention_dim": 64,
            "pooled_projection_dim": 64,
            "pos_embed_max_size": 16,
        }
        blocks, texts = (4, 4, 4, 4), ((32, 1, 2), (32, 1, 2))
    torch.manual_seed(0)
    with device:
        transformer = SD3Transformer2DModel(patch_size=2, in_channels=16, out_channels=16, **sizes)
        vae = AutoencoderKL(
            block_out_channels=blocks,
            layers_per_block=1 if tiny else 2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4 if tiny else 32,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            sample_size=32 if tiny else 1024,
        )
        t5 = T5EncoderModel(
            T5Config(vocab_size=CLIP_WORDS, d_model=sizes["joint_attention_dim"], d_kv=8, d_ff=16, num_layers=1)
        )
        modules: dict[str, Any] = {"transformer": transformer, "vae": vae, "text_encoder_3": t5}
        modules["text_encoder"] = clip_text(*texts[0], "quick_gelu", projected=True)
        modules["text_encoder_2"] = clip_text(*texts[1], "gelu", projected=True)
    dtype = torch.float32 if tiny else torch.bfloat16
    modules = {name: module.to(dtype).eval() for name, module in modules.items()}
    tokenizers = {name: clip_tokenizer() for name in ("tokenizer", "tokenizer_2", "tokenizer_3")}
    StableDiffusion3Pipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **tokenizers, **modules).save_pretrained(
        folder
    )
    return folder


def toolkit_round(work: ImageWork, device: torch.device, reward: RandomClip) -> dict[str, Any]:
    """The second round of a run, so that everything is warm."""
    from raft_diffusion import PipelineMemory, PipelineSampling, TextToImage, TransformerLora

    policy = TextToImage(
        str(work.model),
        TransformerLora(rank=8, targets=TARGETS),
        PipelineSampling(
            steps=work.steps,
            guidance_scale=work.guidance_scale,
            width=work.side,
            height=work.side,
            batch_size=work.batch_size,
        ),
        memory=PipelineMemory(offload=work.offload),
        dtype=work.dtype,  # type: ignore[arg-type]
        device=str(device),
    )
    policy.load()
    trainer = Trainer(Optimizer(lr=1e-4), batch_size=work.train_batch, steps=work.train_steps)
    trainer.attach(policy, seed=0, rounds=2)
    phases, failed = Phases(device), 0
    for rnd in (1, 2):
        phases, failed = measured_round(policy, trainer, work, reward, rnd, device)
    return {**phases.plain(), "failed_pictures": failed}


def bare_round(work: ImageWork, device: torch.device, reward: RandomClip) -> dict[str, Any]:
    """The same in plain loops, the second time."""
    from diffusers import StableDiffusion3Pipeline
    from peft import LoraConfig

    pipe: Any = StableDiffusion3Pipeline.from_pretrained(str(work.model), dtype=getattr(torch, work.dtype))
    pipe = pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.requires_grad_(False)
    pipe.transformer.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=list(TARGETS)))
    trained = [parameter for parameter in pipe.transformer.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    phases = Phases(device)
    for turn in (1, 2):
        phases = _bare_turn(pipe, optimizer, trained, work, device, reward, turn)
    return phases.plain()


def _bare_turn(
    pipe: Any, optimizer: Any, trained: list, work: ImageWork, device: torch.device, reward: RandomClip, turn: int
) -> Phases:
    phases, vae = Phases(device), pipe.vae
    generator = torch.Generator(device).manual_seed(turn)
    texts = [text for text in work.texts for _ in range(work.k)]
    half = torch.autocast(device.type, getattr(torch, work.dtype), enabled=work.dtype != "float32")
    settings: dict[str, Any] = {
        "num_inference_steps": work.steps,
        "guidance_scale": work.guidance_scale,
        "output_type": "latent",
    }
    with phases.phase("sample"), torch.no_grad(), half:
        latents = [
            pipe(texts[i : i + work.batch_size], height=work.side, width=work.side, generator=generator, **settings).images
            for i in range(0, len(texts), work.batch_size)
        ]
    drawn = torch.cat(latents).float()
    with phases.phase("decode"), torch.no_grad():
        pictures = []
        for part in drawn.split(work.batch_size):
            scaled = part / vae.config.scaling_factor + vae.config.shift_factor
            pixels = vae.decode(scaled.to(vae.dtype), return_dict=False)[0]
            pictures += pipe.image_processor.postprocess(pixels.float().nan_to_num(), output_type="pil")
    with phases.phase("score"):
        scores = reward.of_pictures(pictures).view(-1, work.k)
    with phases.phase("train"):
        best = (scores.argmax(dim=1) + torch.arange(len(scores)) * work.k).to(device)
        with torch.no_grad():
            states, _, pooled, _ = pipe.encode_prompt(work.texts, None, None, device=device, do_classifier_free_guidance=False)
        for step in range(work.train_steps):
            rows = torch.arange(step * work.train_batch, (step + 1) * work.train_batch, device=device) % len(best)
            x0 = drawn[best[rows]]
            noise, sigma = torch.randn_like(x0), torch.rand(len(rows), device=device)
            x = torch.lerp(x0, noise, sigma.view(-1, 1, 1, 1))
            with half:
                told = {"encoder_hidden_states": states[rows], "pooled_projections": pooled[rows]}
                predicted = pipe.transformer(x.to(states.dtype), timestep=1000 * sigma, **told, return_dict=False)[0]
            F.mse_loss(predicted.float(), noise - x0).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return phases


def both(work: ImageWork, device: torch.device, *, tiny: bool = False) -> dict[str, Any]:
    """The toolkit's round and the bare one, one after the other, each alone on the device."""
    found: dict[str, Any] = {}
    for name, made in (("toolkit", toolkit_round), ("bare", bare_round)):
        give_back()
        torch.manual_seed(0)
        found[name] = made(work, device, RandomClip(device, tiny=tiny))
    give_back()
    return found
