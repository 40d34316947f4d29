"""A round of pictures: the toolkit's, and one in plain diffusers and peft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.gpu.models import RandomClip
from benchmarks.gpu.phases import Phases, give_back
from raft_core.objectives.sft import Sft
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class ImageWork:
    """How much a round does, and how.

    Attributes:
        model: a diffusers folder.
        side: of the pictures, pixels.
        dtype: of the frozen weights: float32, float16 or bfloat16.
        prompts, k: pictures are their product.
        batch_size: pictures drawn together.
        steps: denoising steps.
        train_steps, train_batch: optimiser steps and pictures in each.
        attention: sdpa or xformers.
        compiled: ``torch.compile`` of the backbone.
        offload: keep only what a phase needs on the device.
        guidance_scale: above 1, two predictions a step.
    """

    model: Path
    side: int = 512
    dtype: str = "float16"
    prompts: int = 2
    k: int = 4
    batch_size: int = 8
    steps: int = 20
    train_steps: int = 5
    train_batch: int = 4
    attention: str = "sdpa"
    compiled: bool = False
    offload: bool = False
    guidance_scale: float = 7.5

    @property
    def texts(self) -> list[str]:
        return [f"picture {i}" for i in range(self.prompts)]


def toolkit_round(work: ImageWork, device: torch.device, reward: RandomClip) -> dict[str, Any]:
    """The second round of a run, so that everything is warm."""
    from raft_diffusion import Lora, Memory, Sampling, StableDiffusion

    policy = StableDiffusion(
        str(work.model),
        lora=Lora(rank=8, targets=TARGETS, conv=False),
        sampling=Sampling(
            scheduler="dpm++",
            steps=work.steps,
            guidance_scale=work.guidance_scale,
            width=work.side,
            height=work.side,
            batch_size=work.batch_size,
        ),
        memory=Memory(attention=work.attention, offload=work.offload),  # type: ignore[arg-type]
        dtype=work.dtype,  # type: ignore[arg-type]
        device=str(device),
    )
    policy.load()
    if work.compiled:
        policy.engine.networks["unet"].compile()
    trainer = Trainer(Optimizer(lr=1e-4), batch_size=work.train_batch, steps=work.train_steps)
    trainer.attach(policy, seed=0, rounds=2)
    phases = Phases(device)
    for rnd in (1, 2):
        phases, failed = _round(policy, trainer, work, reward, rnd, device)
    return {**phases.plain(), "failed_pictures": failed}


def _round(
    policy: Any, trainer: Trainer, work: ImageWork, reward: RandomClip, rnd: int, device: torch.device
) -> tuple[Phases, int]:
    phases = Phases(device)
    asked = requests([Prompt(text) for text in work.texts], work.k, 0, rnd)
    with phases.phase("sample"), policy.resident("sample"):
        samples = []
        for start in range(0, len(asked), work.batch_size):
            samples += policy.sample(asked[start : start + work.batch_size], purpose="round")
    with phases.phase("decode"), policy.resident("render"):
        samples = policy.render(samples)
    failed = sum(sample.output is None for sample in samples)
    with phases.phase("score"):
        sound = [sample for sample in samples if sample.output is not None]
        scored = iter(reward(sound) if sound else [])
        scores = np.array([np.nan if sample.output is None else next(scored) for sample in samples])
    with phases.phase("train"), policy.resident("train"):
        trainer.fit(policy, Sft(), samples, BestOfK()(scores.reshape(-1, work.k)), rnd)
    return phases, failed


def bare_round(work: ImageWork, device: torch.device, reward: RandomClip) -> dict[str, Any]:
    """The same in plain loops, the second time: the pipeline's own call, the VAE, the tower, and a loss by hand."""
    pipe = _load_bare(work, device)
    trained = [parameter for parameter in pipe.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    phases = Phases(device)
    for turn in (1, 2):
        phases = _bare_turn(pipe, optimizer, trained, work, device, reward, turn)
    return phases.plain()


def _load_bare(work: ImageWork, device: torch.device) -> Any:
    from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
    from peft import LoraConfig

    pipe: Any = DiffusionPipeline.from_pretrained(str(work.model), dtype=getattr(torch, work.dtype)).to(device)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if (module := getattr(pipe, name, None)) is not None:
            module.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=list(TARGETS)))
    for parameter in pipe.unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for module in (pipe.unet, pipe.vae):
        module.to(memory_format=torch.channels_last)
    if work.attention == "xformers":
        pipe.unet.enable_xformers_memory_efficient_attention()
    if work.compiled:
        pipe.unet.compile()
    return pipe


def _bare_turn(
    pipe: Any, optimizer: Any, trained: list, work: ImageWork, device: torch.device, reward: RandomClip, turn: int
) -> Phases:
    phases, folds = Phases(device), work.dtype == "float32"
    half: Callable[[], Any] = lambda: torch.autocast(device.type, getattr(torch, work.dtype), enabled=not folds)  # noqa: E731
    generator = torch.Generator(device).manual_seed(turn)
    texts = [text for text in work.texts for _ in range(work.k)]
    with phases.phase("sample"), torch.no_grad(), half():
        if folds:  # a fair floor: in float32 the adapters are part of the weights while it samples
            pipe.unet.fuse_lora()
        latents = []
        for start in range(0, len(texts), work.batch_size):
            part = texts[start : start + work.batch_size]
            settings = {"num_inference_steps": work.steps, "guidance_scale": work.guidance_scale, "output_type": "latent"}
            latents.append(pipe(part, height=work.side, width=work.side, generator=generator, **settings).images)
        if folds:
            pipe.unet.unfuse_lora()
    drawn = torch.cat(latents)
    vae = pipe.vae
    with phases.phase("decode"), torch.no_grad():
        if vae.config.force_upcast and vae.dtype == torch.float16:
            vae.to(torch.float32)
        pictures = []
        for part in drawn.split(work.batch_size):
            pixels = vae.decode(part.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
            pictures += pipe.image_processor.postprocess(pixels.float().nan_to_num(), output_type="pil")
    with phases.phase("score"):
        scores = reward.of_pictures(pictures).view(-1, work.k)
    with phases.phase("train"):
        best = (scores.argmax(dim=1) + torch.arange(len(scores)) * work.k).to(device)
        with torch.no_grad():
            conditions = _conditions(pipe, work, device)
        alpha_bar = pipe.scheduler.alphas_cumprod.to(device)
        for step in range(work.train_steps):
            rows = torch.arange(step * work.train_batch, (step + 1) * work.train_batch, device=device) % len(best)
            x0 = drawn[best[rows]].float()
            noise = torch.randn_like(x0)
            t = torch.randint(len(alpha_bar), (len(rows),), device=device)
            signal, sigma = alpha_bar[t].sqrt().view(-1, 1, 1, 1), (1 - alpha_bar[t]).sqrt().view(-1, 1, 1, 1)
            with half():
                predicted = pipe.unet(signal * x0 + sigma * noise, t, **_taken(conditions, rows), return_dict=False)[0]
            F.mse_loss(predicted.float(), noise).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return phases


def _conditions(pipe: Any, work: ImageWork, device: torch.device) -> dict[str, torch.Tensor]:
    """What the U-Net is told of each prompt; encoded once."""
    encoded = pipe.encode_prompt(work.texts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False)
    found = {"encoder_hidden_states": encoded[0]}
    if getattr(pipe, "text_encoder_2", None) is not None:
        sizes = torch.tensor([work.side, work.side, 0, 0, work.side, work.side], dtype=torch.float32, device=device)
        found |= {"text_embeds": encoded[2], "time_ids": sizes.expand(work.prompts, -1)}
    return found


def _taken(conditions: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, Any]:
    taken = {name: value[rows] for name, value in conditions.items()}
    states = taken.pop("encoder_hidden_states")
    return {"encoder_hidden_states": states, **({"added_cond_kwargs": taken} if taken else {})}


def both(work: ImageWork, device: torch.device, *, tiny: bool = False) -> dict[str, Any]:
    """The toolkit's round and the bare one, one after the other, each alone on the device."""
    found: dict[str, Any] = {}
    for name, made in (("toolkit", toolkit_round), ("bare", bare_round)):
        give_back()
        torch.manual_seed(0)
        found[name] = made(work, device, RandomClip(device, tiny=tiny))
    give_back()
    return found
