"""The same arithmetic as a round, in plain loops: no store, no records, no checks. What a round cannot be faster than.

Shared by the benchmarks as the denominator. Written against diffusers, peft and torch alone.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image


@dataclass(frozen=True)
class Work:
    """How much a round does; the defaults are those of ``configs/shapes/resolution.yaml``."""

    model: str
    prompts: tuple[str, ...]
    k: int = 16
    side: int = 32
    denoising_steps: int = 12
    guidance_scale: float = 1.5
    batch_size: int = 32
    train_steps: int = 40
    train_batch: int = 30
    lr: float = 2e-4
    rank: int = 8
    conv: bool = True
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass
class Clock:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def load(work: Work) -> Any:
    """A pipeline with fresh adapters and a DPM-Solver++ scheduler."""
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
    from peft import LoraConfig

    pipe = StableDiffusionPipeline.from_pretrained(work.model, dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    targets = [*work.targets, *(("conv1", "conv2", "conv_shortcut") if work.conv else ())]
    pipe.unet.add_adapter(LoraConfig(r=work.rank, lora_alpha=work.rank, target_modules=targets))
    return pipe


def trained(pipe: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in pipe.unet.parameters() if parameter.requires_grad]


@torch.no_grad()
def encode(pipe: Any, prompts: list[str]) -> torch.Tensor:
    """[P, T, D] text states."""
    tokens = pipe.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipe.text_encoder(tokens)[0]


@torch.no_grad()
def sample(pipe: Any, work: Work, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """([P·K, C, h, w] latents, [P, T, D] text states), prompt-major."""
    states = encode(pipe, [*work.prompts, ""])
    rows = torch.arange(len(work.prompts)).repeat_interleave(work.k)
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    shape = (pipe.unet.config.in_channels, work.side // factor, work.side // factor)
    latents = []
    for part in rows.split(work.batch_size):
        condition = torch.cat([states[-1:].expand(len(part), -1, -1), states[part]])
        pipe.scheduler.set_timesteps(work.denoising_steps)
        x = torch.randn(len(part), *shape, generator=generator) * pipe.scheduler.init_noise_sigma
        for t in pipe.scheduler.timesteps:
            unconditional, conditional = pipe.unet(torch.cat([x, x]), t, condition, return_dict=False)[0].chunk(2)
            x = pipe.scheduler.step(
                unconditional + work.guidance_scale * (conditional - unconditional), t, x, return_dict=False
            )[0]
        latents.append(x)
    return torch.cat(latents), states


@torch.no_grad()
def decode(pipe: Any, latents: torch.Tensor, batch_size: int) -> list[Image.Image]:
    pictures: list[Image.Image] = []
    for part in latents.split(batch_size):
        decoded = pipe.vae.decode(part / pipe.vae.config.scaling_factor, return_dict=False)[0]
        pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        pictures += [Image.fromarray(row) for row in pixels]
    return pictures


def train(pipe: Any, optimizer: torch.optim.Optimizer, latents: torch.Tensor, states: torch.Tensor, work: Work) -> None:
    """``work.train_steps`` steps of the denoising loss (v-prediction or ε) on the winners."""
    alpha_bar = pipe.scheduler.alphas_cumprod
    velocity = pipe.scheduler.config.prediction_type == "v_prediction"
    for step in range(work.train_steps):
        rows = torch.arange(step * work.train_batch, (step + 1) * work.train_batch) % len(latents)
        x0, noise = latents[rows], torch.randn(len(rows), *latents.shape[1:])
        t = torch.randint(len(alpha_bar), (len(rows),))
        signal, sigma = alpha_bar[t].sqrt().view(-1, 1, 1, 1), (1 - alpha_bar[t]).sqrt().view(-1, 1, 1, 1)
        predicted = pipe.unet(signal * x0 + sigma * noise, t, states[rows], return_dict=False)[0]
        loss = F.mse_loss(predicted, signal * noise - sigma * x0 if velocity else noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained(pipe), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def bare_round(pipe: Any, optimizer: torch.optim.Optimizer, work: Work, reward: Any) -> Clock:
    """One round in plain loops.

    Args:
        reward: PIL images → [N] tensor of scores; the reward's own forward passes and nothing else.
    """
    clock = Clock()
    with clock.phase("sample"):
        latents, states = sample(pipe, work, torch.Generator().manual_seed(0))
    with clock.phase("render"):
        pictures = decode(pipe, latents, work.batch_size)
        scores = reward(pictures).view(-1, work.k)
    with clock.phase("train"):
        best = scores.argmax(dim=1) + torch.arange(len(scores)) * work.k
        train(pipe, optimizer, latents[best], states[: len(work.prompts)], work)
    return clock


def png_bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write_pngs(pictures: list[Image.Image], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:05d}.png" for index in range(len(pictures))]
    for picture, file in zip(pictures, files, strict=True):
        file.write_bytes(png_bytes(picture))
    return files
