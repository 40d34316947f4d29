"""The autoencoder: 4× down, 4 latent channels, 64² and 32² alike."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.scenes import render
from raft_diffusion.world.splits import draw_scenes
from raft_diffusion.world.training import train

STEPS = 1800
BATCH = 8  # of 64² pictures, or four times as many of 32²
LR = 1.5e-3
KL_WEIGHT = 1e-4
SCENES = 8000
CHANNELS = (16, 32, 48)
CONSTANT = 3.0  # see `pass_through`


def build_vae():
    """An untrained AutoencoderKL that already passes blurred pictures through."""
    ensure_importable()
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        block_out_channels=CHANNELS,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        sample_size=64,
        mid_block_add_attention=False,
    )
    pass_through(vae)
    return vae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def pass_through(vae) -> None:
    """Starts the autoencoder as "shrink, enlarge": only sharp edges are left to learn.

    From random weights a network this narrow spends thousands of steps on getting colours past its normalisation layers. So
    the residual stream begins with x, -x and two constants: with the constants a group's variance hardly depends on the
    picture, and SiLU(x) - SiLU(-x) = x makes the activation linear for the pair. Residual branches begin at zero.
    """
    shrink, enlarge = torch.zeros(3, 3), torch.outer(*[torch.tensor([0.25, 0.5, 0.25])] * 2)
    shrink[:2, :2] = 0.25  # with the downsampler's padding at the right and the bottom: the mean of 2×2
    for name, module in vae.named_modules():
        if name.endswith("conv2"):
            module.weight.zero_()
        if name.endswith("conv_shortcut"):
            _identity(module, torch.ones(1, 1))
        if name.endswith("samplers.0.conv"):
            module.weight.zero_()
            _identity(module, shrink if "down" in name else enlarge)
    for conv, source in ((vae.encoder.conv_in, 3), (vae.decoder.conv_in, 3)):
        conv.weight[:8].zero_()
        conv.bias[:8] = torch.tensor([0.0] * 6 + [CONSTANT, -CONSTANT])
        for channel in range(source):
            conv.weight[channel, channel, 1, 1], conv.weight[channel + 3, channel, 1, 1] = 1.0, -1.0
    for conv in (vae.encoder.conv_out, vae.decoder.conv_out):
        conv.weight[:3].zero_()
        conv.bias[:3].zero_()
        deviation = ((2 * CONSTANT**2 + 3) / conv.in_channels) ** 0.5
        for channel in range(3):
            conv.weight[channel, channel, 1, 1], conv.weight[channel, channel + 3, 1, 1] = deviation, -deviation
    _identity(vae.post_quant_conv, torch.ones(1, 1))
    _identity(vae.quant_conv, torch.ones(1, 1))
    latents = vae.config.latent_channels
    vae.quant_conv.weight[latents:] *= 0.1
    vae.quant_conv.bias[latents:] = -6.0  # log-variance: the latents begin almost noiseless


def _identity(conv, kernel):
    """Output channel i begins as input channel i under the kernel, as far as there are inputs; no bias."""
    shared = min(conv.in_channels, conv.out_channels)
    conv.weight[:shared].zero_()
    conv.bias.zero_()
    for channel in range(shared):
        conv.weight[channel, channel] = kernel


def pixels(pictures: np.ndarray) -> torch.Tensor:
    """[N, H, W, 3] uint8 to [N, 3, H, W] float in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def edges(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels, across and down."""
    return picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]


def autoencoding_loss(vae, picture: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean L1 of pixels and of their differences, plus a small KL per latent element.

    Args:
        vae: AutoencoderKL.
        picture: [B, 3, H, W] in -1..1.
        noise: [B, 4, H/4, W/4] standard normal.
    """
    posterior = vae.encode(picture).latent_dist
    back = vae.decode(posterior.mean + posterior.std * noise).sample
    sharp = sum((F.l1_loss(a, b) for a, b in zip(edges(back), edges(picture), strict=True)), torch.zeros(()))
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return F.l1_loss(back, picture) + sharp + KL_WEIGHT * kl


def train_vae(work: Path, seed: int):
    """Trains the autoencoder, sets its scaling factor; returns (vae, seconds)."""
    torch.manual_seed(seed)
    vae = build_vae()
    scenes = draw_scenes(np.random.default_rng(seed), SCENES)
    pictures = {64: render(scenes, 64), 32: render(scenes, 32)}

    def loss(step, generator):
        kind = step % 4
        side = 64 if kind == 0 else 32
        rows = torch.randint(SCENES, (BATCH * (64 // side) ** 2,), generator=generator)
        noise = torch.randn(len(rows), 4, side // 4, side // 4, generator=generator)
        drawn = pixels(pictures[32 if kind == 1 else 64][rows.numpy()])
        if kind > 1:
            drawn = near_objects(drawn, [scenes[row] for row in rows.tolist()], generator)
        return autoencoding_loss(vae, drawn.contiguous(memory_format=torch.channels_last), noise)

    seconds = train(vae, loss, steps=STEPS, lr=LR, seed=seed, checkpoint=work / "vae.pt", ema_decay=0.995)
    with torch.no_grad():
        deviation = encode(vae, pictures[64][:512], seed).std().item()
    vae.register_to_config(scaling_factor=round(1 / deviation, 5))
    return vae, seconds


def near_objects(picture: torch.Tensor, scenes, generator: torch.Generator) -> torch.Tensor:
    """Crops [B, 3, 32, 32] of 64² pictures around their objects, where there is something to learn."""
    shift = torch.randint(-10, 11, (len(scenes), 2), generator=generator).tolist()
    crops = []
    for whole, scene, (dx, dy) in zip(picture, scenes, shift, strict=True):
        left, top = (min(max(int((at + 1) * 32) - 16 + d, 0), 32) for at, d in ((scene.x, dx), (scene.y, dy)))
        crops.append(whole[:, top : top + 32, left : left + 32])
    return torch.stack(crops)


@torch.no_grad()
def encode(vae, pictures: np.ndarray, seed: int, batch: int = 128) -> torch.Tensor:
    """Unscaled latents [N, 4, H/4, W/4], drawn from the posterior."""
    generator = torch.Generator().manual_seed(seed)
    parts = [pixels(pictures[i : i + batch]) for i in range(0, len(pictures), batch)]
    return torch.cat([vae.encode(part).latent_dist.sample(generator) for part in parts])


def round_trip(vae, pictures: np.ndarray) -> np.ndarray:
    """Pictures [N, H, W, 3] uint8 as the autoencoder gives them back: what a perfect denoiser would draw."""
    return decode(vae, encode(vae, pictures, seed=0))


@torch.no_grad()
def decode(vae, latents: torch.Tensor, batch: int = 64) -> np.ndarray:
    """Unscaled latents to pictures [N, H, W, 3] uint8."""
    parts = [vae.decode(latents[i : i + batch]).sample for i in range(0, len(latents), batch)]
    picture = torch.cat(parts).clamp(-1, 1).add(1).mul(127.5).round().byte()
    return picture.permute(0, 2, 3, 1).numpy()
