"""The denoiser: v-prediction on 16×16 latents of 64² pictures, conditioned on the frozen text encoder."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.captions import caption, drop_names
from raft_diffusion.world.corrupt import canvases, corrupt
from raft_diffusion.world.pictures import OMITTED
from raft_diffusion.world.scenes import ATTRIBUTES, Scene, render
from raft_diffusion.world.splits import draw_scenes
from raft_diffusion.world.tokenizer import CONTEXT
from raft_diffusion.world.training import train
from raft_diffusion.world.vae import encode

STEPS = 6000  # half of them at 64², half at 32²
BATCH = 48
LR = 1.2e-3
CHOSEN, FOUND = 14_000, 14_000  # pictures at 64², all well-formed, and at 32², mostly not
CLEAN_SHARE = 0.38  # of the pictures at 32²
FAULTS = ("smeared", "cut", "eaten", "muddled", "bled", "doubled", "faded", "empty")
SEVERITY = (0.45, 1.0)
NO_CAPTION = 0.10
SNR_CAP = 5.0
EMA = 0.999


def build_unet():
    """An untrained UNet2DConditionModel of 2.8 M parameters."""
    ensure_importable()
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=128,
        norm_num_groups=8,
    )


def noise_schedule():
    """Stable Diffusion's own schedule with v-prediction, as the scheduler that ships."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",  # from the last timestep on: "leading" starts at 913 of 999 with 12 steps
    )


def denoising_loss(unet, latents, states, timestep, noise, alphas_cumprod):
    """Min-SNR-weighted v-prediction loss, mean over batch and latent elements.

    Args:
        unet: UNet2DConditionModel.
        latents: [B, 4, h, w] scaled.
        states: [B, T, D] text hidden states.
        timestep: [B] int64.
        noise: [B, 4, h, w] standard normal.
        alphas_cumprod: [1000] the schedule's ᾱ.

    Source: Salimans & Ho 2022 (v); Hang et al. 2023 (min-SNR, weight min(SNR, γ) / (SNR + 1) for v).
    """
    kept = alphas_cumprod[timestep].view(-1, 1, 1, 1)
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    predicted = unet(alpha * latents + sigma * noise, timestep, encoder_hidden_states=states).sample
    snr = (kept / (1 - kept)).flatten()
    error = (predicted - (alpha * noise - sigma * latents)).square().mean((1, 2, 3))
    return (error * snr.clamp(max=SNR_CAP) / (snr + 1) * (1 + 1 / SNR_CAP)).mean()


@dataclass(frozen=True)
class TextTable:
    """Hidden states of every caption of this world: row 0 is the empty caption."""

    rows: dict[str, int]
    states: torch.Tensor  # [captions, T, D]

    def of(self, captions: list[str]) -> torch.Tensor:
        """[B, T, D]"""
        return self.states[[self.rows[text] for text in captions]]


@torch.no_grad()
def text_table(text_encoder, tokenizer) -> TextTable:
    """Encodes every caption once, with size, place and background said or not."""
    optional = [(None, *values) if key not in ("colour", "shape") else values for key, values in ATTRIBUTES.items()]
    texts = ["", *(caption(dict(zip(ATTRIBUTES, names, strict=True))) for names in itertools.product(*optional))]  # pyright: ignore[reportArgumentType]
    ids = tokenizer(texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt").input_ids
    states = torch.cat([text_encoder(part).last_hidden_state for part in ids.split(256)])
    return TextTable({text: row for row, text in enumerate(texts)}, states)


def draw_caption(rng: np.random.Generator, scene: Scene) -> str:
    """What the denoiser is told of a scene: everything, a part, or nothing."""
    if rng.random() < NO_CAPTION:
        return ""
    return caption(drop_names(rng, scene.attributes(), OMITTED))


@dataclass(frozen=True)
class Lesson:
    """Pictures of one resolution to learn from.

    `latents` are [N, 4, h, w], scaled; row i shows `scenes[i]`.
    """

    unet: object
    scenes: list[Scene]
    latents: torch.Tensor
    table: TextTable
    alphas_cumprod: torch.Tensor

    def loss(self, generator: torch.Generator, words: np.random.Generator) -> torch.Tensor:
        """The denoising loss of one batch."""
        rows = torch.randint(len(self.scenes), (BATCH,), generator=generator)
        states = self.table.of([draw_caption(words, self.scenes[row]) for row in rows.tolist()])
        timestep = torch.randint(len(self.alphas_cumprod), (BATCH,), generator=generator)
        noise = torch.randn(self.latents[rows].shape, generator=generator)
        return denoising_loss(self.unet, self.latents[rows], states, timestep, noise, self.alphas_cumprod)


def train_unet(work: Path, seed: int, vae, text_encoder, tokenizer, publish=None):
    """Trains the denoiser at 64² and 32² in turn; returns (unet with averaged weights, seconds).

    A denoiser that knows 64² alone draws nothing at all at 32². Stable Diffusion 1.x has met 256², in its first pretraining on
    pictures as they were found; only the later ones at 512² were chosen for quality. So here: the pictures at 32² are mostly
    ill-formed, and what the denoiser draws there is what it has seen there.
    """
    torch.manual_seed(seed)
    unet = build_unet()
    table, alphas_cumprod = text_table(text_encoder, tokenizer), noise_schedule().alphas_cumprod
    rng, scale = np.random.default_rng(seed + 2), vae.config.scaling_factor
    chosen, found = draw_scenes(rng, CHOSEN), draw_scenes(rng, FOUND)
    latents = _kept(work / "latents64.pt", lambda: encode(vae, render(chosen, 64), seed))
    large = Lesson(unet, chosen, latents * scale, table, alphas_cumprod)
    latents = _kept(work / "latents32.pt", lambda: encode(vae, as_found(found, 32, seed + 6), seed))
    small = Lesson(unet, found, latents * scale, table, alphas_cumprod)
    seconds = train(
        unet,
        lambda step, generator: (small if step % 2 else large).loss(generator, np.random.default_rng([seed, step])),
        steps=STEPS, lr=LR, seed=seed, checkpoint=work / "unet.pt", ema_decay=EMA,
        publish=(lambda step: publish(unet, step)) if publish else None,
    )  # fmt: skip
    return unet, seconds


def as_found(scenes: list[Scene], side: int, seed: int) -> np.ndarray:
    """Pictures [N, side, side, 3] uint8 of which most are damaged in the ways that a crawl of small pictures would show."""
    rng = np.random.default_rng(seed)
    pictures = render(scenes, side)
    for row, canvas in enumerate(canvases(scenes, side, rng)):
        if rng.random() >= CLEAN_SHARE:
            pictures[row] = corrupt(canvas, str(rng.choice(FAULTS)), float(rng.uniform(*SEVERITY)))
    return pictures


def _kept(cache: Path, compute):
    """A tensor that is computed once and then read from a file."""
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        torch.save(compute(), cache)
    return torch.load(cache, weights_only=True)
