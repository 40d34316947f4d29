"""The autoencoder: 8× down, 8 latent channels, for pictures of 64² to 128².

Most of a picture is plain background, so three steps in four are spent on crops around the objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.emoji.scenes import Scene, covers, render
from raft_diffusion.world.emoji.splits import draw_scenes
from raft_diffusion.world.training import train, warmup_hold_decay
from raft_diffusion.world.vae import edges, pass_through, pixels

STEPS = 9000
CROP, BATCH = 64, 16  # crops in a step
WHOLE = 4  # whole pictures of 128² in a step, or as many pixels of smaller ones
LR = 2e-3
KL_WEIGHT = 1e-4
SPRITE_WEIGHT, EDGE_WEIGHT = 2.0, 1.0
SCENES = {128: 4000, 96: 1200, 80: 1200, 64: 600}
CHANNELS = (16, 32, 64, 64)
LATENTS = 8
DOWN = 8
BLUR = 0.05  # deviation of the noise on standardised latents that the decoder learns to bear, as a denoiser leaves it


def build_vae():
    """An untrained AutoencoderKL that already passes blurred pictures through."""
    ensure_importable()
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        block_out_channels=CHANNELS,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=1,
        sample_size=128,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    pass_through(vae)
    return vae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def autoencoding_loss(vae, picture: torch.Tensor, cover: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean L1 of pixels, weighted on the object, and of their differences, plus a small KL per latent element.

    Args:
        vae: AutoencoderKL.
        picture: [B, 3, H, W] in -1..1.
        cover: [B, 1, H, W] in 0..1, 1 on the object.
        noise: [B, 8, H/8, W/8] standard normal.
    """
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(picture).latent_dist
        back = vae.decode(posterior.mean + posterior.std * noise).sample
    mean, variance, logvar, back = (x.float() for x in (posterior.mean, posterior.var, posterior.logvar, back))
    kl = 0.5 * (mean**2 + variance - 1 - logvar).mean()
    return likeness(back, picture, cover) + KL_WEIGHT * kl


def likeness(back: torch.Tensor, picture: torch.Tensor, cover: torch.Tensor) -> torch.Tensor:
    """Mean L1 of pixels and of their differences, weighted on the object."""
    weight = 1 + SPRITE_WEIGHT * cover
    sharp = [((a - b).abs() * w).mean() for a, b, w in zip(edges(back), edges(picture), _shared(weight), strict=True)]
    return ((back - picture).abs() * weight).mean() + EDGE_WEIGHT * sum(sharp, torch.zeros(()))


def _shared(weight):
    """Weights of the differences that `edges` takes."""
    return weight[..., 1:], weight[..., 1:, :]


@dataclass(frozen=True)
class Pool:
    """Renders of one size: `pictures` [N, S, S, 3] and `covers` [N, S, S], uint8."""

    scenes: Sequence[Scene]
    pictures: np.ndarray
    covers: np.ndarray

    @property
    def side(self) -> int:
        """Pixels."""
        return self.pictures.shape[1]

    def whole(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures [B, 3, S, S] in -1..1 and covers [B, 1, S, S]."""
        return self._tensors([(row, 0, 0) for row in rows], self.side)

    def crops(self, rows: Sequence[int], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of `CROP`², around the objects."""
        reach = torch.rand(len(rows), 2, generator=generator).mul_(48).sub_(24).int().tolist()
        corners = [
            (row, *(int(min(max((at + 1) * self.side / 2 - CROP / 2 + move, 0), self.side - CROP)) for at, move in moves))
            for row, moves in (
                (row, ((self.scenes[row].y, dy), (self.scenes[row].x, dx))) for row, (dy, dx) in zip(rows, reach, strict=True)
            )
        ]
        return self._tensors(corners, CROP)

    def _tensors(self, corners, side):
        cut = [(row, slice(top, top + side), slice(left, left + side)) for row, top, left in corners]
        picture = pixels(np.stack([self.pictures[at] for at in cut]))
        cover = torch.from_numpy(np.stack([self.covers[at] for at in cut])).float().div_(255)[:, None]
        return picture.contiguous(memory_format=torch.channels_last), cover


def draw_pools(seed: int, counts: dict[int, int]) -> list[Pool]:
    """Renders of the pretraining split, so many of each size."""
    rng = np.random.default_rng(seed)
    drawn = {side: draw_scenes(rng, count) for side, count in counts.items()}
    return [Pool(scenes, render(scenes, side), covers(scenes, side)) for side, scenes in drawn.items()]


def draw_batch(pools: Sequence[Pool], step: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What one step sees: three times crops (twice of the largest renders), then whole pictures of one size."""
    turn = step // 4
    if step % 4 == 3:
        pool = pools[turn // 2 % len(pools) if turn % 2 else 0]
        rows = torch.randint(len(pool.scenes), (WHOLE * 128**2 // pool.side**2,), generator=generator).tolist()
        return pool.whole(rows)
    pool = pools[turn % len(pools) if step % 4 == 2 else 0]
    return pool.crops(torch.randint(len(pool.scenes), (BATCH,), generator=generator).tolist(), generator)


def train_vae(work: Path, seed: int, *, steps: int = STEPS, warm: Path | None = None):
    """Trains the autoencoder; returns (vae whose latents have mean 0 and deviation 1 in every channel, seconds).

    `warm` is the folder of an AutoencoderKL to begin from where there is no checkpoint.
    """
    torch.manual_seed(seed)
    vae = build_vae()
    if warm is not None:
        vae = type(vae).from_pretrained(warm, torch_dtype=torch.float32).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    pools = draw_pools(seed, SCENES)

    def loss(step, generator):
        picture, cover = draw_batch(pools, step, generator)
        latent = (len(picture), LATENTS, picture.shape[2] // DOWN, picture.shape[3] // DOWN)
        return autoencoding_loss(vae, picture, cover, torch.randn(latent, generator=generator))

    seconds = train(
        vae, loss, steps=steps, lr=LR, seed=seed, checkpoint=work / "vae.pt", ema_decay=0.995, schedule=warmup_hold_decay
    )
    standardise(vae, pools[0].pictures[:1000])
    return vae, seconds


def train_decoder(vae, work: Path, seed: int, *, steps: int = STEPS):
    """Trains the decoder of an autoencoder on, its encoder and so its latents as they are; returns (vae, seconds)."""
    vae = vae.to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    pools = draw_pools(seed + 1, SCENES)

    def loss(step, generator):
        picture, cover = draw_batch(pools, step, generator)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                posterior = vae.encode(picture).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            back = vae.decode(posterior.mean + (posterior.std + BLUR) * noise).sample
        return likeness(back.float(), picture, cover)

    seconds = train(
        vae, loss, steps=steps, lr=LR, seed=seed, checkpoint=work / "decoder.pt", ema_decay=0.998, schedule=warmup_hold_decay
    )
    return vae, seconds


@torch.no_grad()
def standardise(vae, pictures: np.ndarray) -> None:
    """Folds each latent channel's mean and deviation into the 1×1 convolutions beside the latents.

    The channels' deviations differ several-fold, and a pipeline knows one scaling factor only.

    Args:
        vae: AutoencoderKL, changed in place; encodes to other units and decodes the same pictures.
        pictures: [N, H, W, 3] uint8 to measure on.
    """
    latents = torch.cat(
        [vae.encode(pixels(part)).latent_dist.mean for part in np.array_split(pictures, -(-len(pictures) // 64))]
    )
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    before, after, count = vae.quant_conv, vae.post_quant_conv, vae.config.latent_channels
    before.weight[:count] /= deviation.view(-1, 1, 1, 1)
    before.bias[:count] = (before.bias[:count] - mean) / deviation
    before.bias[count:] -= 2 * deviation.log()  # the log-variances
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= deviation.view(1, -1, 1, 1)
