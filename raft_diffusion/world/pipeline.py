"""Assembles the parts into an ordinary diffusers Stable Diffusion folder."""

import json
from pathlib import Path

import torch

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.tokenizer import build_tokenizer
from raft_diffusion.world.unet import noise_schedule


def save_pipeline(vae, text_encoder, unet, folder: Path, tokenizer=None) -> None:
    """Writes the folder, weights in fp16; the modules themselves stay as they are. The tokenizer is the shapes' if None."""
    ensure_importable()
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer or build_tokenizer(),
        unet=unet,
        scheduler=noise_schedule(),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    kept = {name: weights_of(getattr(pipeline, name)) for name in ("vae", "text_encoder", "unet")}
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder)
    for name, weights in kept.items():
        module = getattr(pipeline, name).float()
        module.load_state_dict(weights)
    declare_fp32(folder / "text_encoder" / "config.json")


def weights_of(module) -> dict[str, torch.Tensor]:
    """A copy of a module's weights."""
    return {key: value.clone() for key, value in module.state_dict().items()}


def declare_fp32(config: Path):
    """transformers loads in the dtype that a config names: fp32, though the file holds fp16."""
    settings = json.loads(config.read_text())
    settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2) + "\n")


def load_pipeline(folder: Path):
    """The StableDiffusionPipeline of a folder in fp32, quiet."""
    ensure_importable()
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def generate(pipeline, prompts: list[str], side: int, *, steps: int, guidance: float, seed: int, batch: int = 64) -> list:
    """PIL pictures, one per prompt; the noise of picture i depends on (seed, i) alone."""
    shape = (1, pipeline.vae.config.latent_channels, *(side // pipeline.vae_scale_factor,) * 2)
    noise = [torch.Generator().manual_seed(seed * 100_003 + i) for i in range(len(prompts))]
    latents = torch.cat([torch.randn(shape, generator=generator) for generator in noise])
    pictures = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        pictures += pipeline(
            prompts[part], height=side, width=side, num_inference_steps=steps, guidance_scale=guidance,
            latents=latents[part],
        ).images  # fmt: skip
    return pictures
