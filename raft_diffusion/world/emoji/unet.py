"""The denoiser: v-prediction on 16×16 latents of 128² pictures, conditioned on the frozen text encoder.

It sees pictures of 128² only, and none that is damaged: that it fails at smaller sizes is what Stable Diffusion does too.
"""

from pathlib import Path

import torch

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.emoji.lessons import Lessons
from raft_diffusion.world.training import train, warmup_hold_decay
from raft_diffusion.world.unet import denoising_loss, noise_schedule

STEPS = 9000
BATCH = 64
LR = 1.2e-3
EMA = 0.999
CHANNELS = (48, 96, 128)


def build_unet(channels: tuple[int, ...] = CHANNELS):
    """An untrained UNet2DConditionModel of 5.3 M parameters."""
    ensure_importable()
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=128,
        norm_num_groups=8,
    )


def batch_loss(
    unet, text_encoder, lessons: Lessons, alphas_cumprod: torch.Tensor, generator: torch.Generator, batch: int = BATCH
):
    """The denoising loss of one batch, scalar."""
    latents, ids = lessons.draw(batch, generator)
    with torch.no_grad():
        states = text_encoder(ids).last_hidden_state
    timestep = torch.randint(len(alphas_cumprod), (batch,), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        return denoising_loss(unet, latents, states, timestep, noise, alphas_cumprod)


def train_unet(
    work: Path, seed: int, text_encoder, lessons: Lessons, *, steps: int = STEPS, warm: Path | None = None, publish=None
):
    """Trains the denoiser; returns (unet with averaged weights, seconds).

    Args:
        work: folder of the checkpoint.
        seed: of weights and batches.
        text_encoder: frozen CLIPTextModel.
        lessons: latents and captions.
        steps: optimiser updates.
        warm: folder of a UNet2DConditionModel to begin from where there is no checkpoint.
        publish: called with (unet, step) on the way, averaged weights in place.
    """
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(seed)
    unet = build_unet()
    if warm is not None:
        unet = type(unet).from_pretrained(warm, torch_dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())  # faster than PyTorch's fused attention in bf16 on CPUs, above all backwards
    alphas_cumprod = noise_schedule().alphas_cumprod
    seconds = train(
        unet, lambda _step, generator: batch_loss(unet, text_encoder, lessons, alphas_cumprod, generator),
        steps=steps, lr=LR, seed=seed, checkpoint=work / "unet.pt", ema_decay=EMA, schedule=warmup_hold_decay,
        publish=(lambda step: publish(unet, step)) if publish else None,
    )  # fmt: skip
    return unet, seconds
