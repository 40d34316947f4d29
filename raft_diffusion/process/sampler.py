"""The denoising loop, its trajectory, and the log-probabilities of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from raft_core.rng import torch_rng
from raft_diffusion.options import Sampling

#: Steps whose noise deviates less than this are deterministic: they have no density, and no log-prob.
SMALLEST_DEVIATION = 1e-6

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Trajectory:
    """What a traced sampling keeps, on the CPU.

    Attributes:
        latents: [B, S+1, C, h, w] from noise to result.
        timesteps: [S] int64.
        log_probs: [B, S] in nats, summed over channels and pixels; 0 where ``mask`` is false.
        mask: [S] bool, false for steps without noise.
    """

    latents: torch.Tensor
    timesteps: torch.Tensor
    log_probs: torch.Tensor
    mask: torch.Tensor


def noise_like(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """[B, *shape] standard normal, each row from its own generator."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


@torch.no_grad()
def denoise(
    predict: Predict,
    scheduler: Any,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    sampling: Sampling,
    *,
    device: torch.device,
    trace: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[torch.Tensor, Trajectory | None]:
    """Latents [B, C, h, w] float32 on the CPU, and the trajectory when traced.

    Args:
        predict: (x [B, C, h, w] float32, timestep [B]) → prediction of that shape, guidance included.
        scheduler: a fresh one; its state is used up.
        seeds: B seeds. Each sample's noise comes from its own CPU generator, that of stochastic steps too, so no sample
            depends on the batch it is in.
        shape: (C, h, w).
        sampling: steps and eta.
        device: where ``predict`` works.
        trace: keep the trajectory.
        on_step: told how many steps are done, and of how many, after each.
    """
    generators = [torch_rng(seed) for seed in seeds]
    scheduler.set_timesteps(sampling.steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        # Else the first step is looked up by its timestep; where rounding gave the first two the same, the second is found.
        scheduler.set_begin_index(0)
    extra = step_arguments(scheduler, sampling, generators)
    x = noise_like(shape, generators).to(device) * scheduler.init_noise_sigma
    kept, log_probs, mask = [x.cpu()], [], []
    for number, t in enumerate(scheduler.timesteps, start=1):
        out = predict(scheduler.scale_model_input(x, t), t.expand(len(seeds)))
        previous = scheduler.step(out, t, x, return_dict=False, **extra)[0].float()
        if trace:
            mean, deviation = ddim_step(scheduler, out, t, x, sampling.eta)
            log_probs.append(gaussian_log_prob(previous, mean, deviation).cpu())
            mask.append(deviation > SMALLEST_DEVIATION)
            kept.append(previous.cpu())
        x = previous
        if on_step is not None:
            on_step(number, len(scheduler.timesteps))
    trajectory = None
    if trace:
        trajectory = Trajectory(
            torch.stack(kept, dim=1), scheduler.timesteps.cpu(), torch.stack(log_probs, dim=1), torch.tensor(mask)
        )
    return x.cpu(), trajectory


def step_arguments(scheduler: Any, sampling: Sampling, generators: list[torch.Generator]) -> dict[str, Any]:
    """What this scheduler's ``step`` takes besides the usual."""
    import inspect

    accepted = inspect.signature(scheduler.step).parameters
    offered: dict[str, Any] = {"generator": generators, "eta": sampling.eta}
    return {name: value for name, value in offered.items() if name in accepted}


def ddim_step(scheduler: Any, out: torch.Tensor, t: torch.Tensor, x: torch.Tensor, eta: float) -> tuple[torch.Tensor, float]:
    """Mean [B, C, h, w] and deviation of x_{t−1} given x_t and the network's prediction.

    σ = η·√((1−ᾱ')/(1−ᾱ))·√(1−ᾱ/ᾱ'), with ᾱ' of the timestep that follows.

    Source: Song et al. 2021 (2010.02502), equations 12 and 16.
    """
    mean = scheduler.step(out, t, x, eta=eta, variance_noise=torch.zeros_like(x), return_dict=False)[0].float()
    following = int(t) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    alpha = float(scheduler.alphas_cumprod[int(t)])
    alpha_next = float(scheduler.alphas_cumprod[following] if following >= 0 else scheduler.final_alpha_cumprod)
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    return mean, eta * math.sqrt(max(variance, 0.0))


def gaussian_log_prob(x: torch.Tensor, mean: torch.Tensor, deviation: float) -> torch.Tensor:
    """[B] log N(x; mean, deviation²) in nats, summed over all axes but the first; 0 for a deterministic step."""
    if deviation <= SMALLEST_DEVIATION:
        return x.new_zeros(len(x))
    scaled = ((x - mean) / deviation).flatten(1)
    return -0.5 * scaled.square().sum(dim=1) - scaled.shape[1] * (math.log(deviation) + 0.5 * math.log(2 * math.pi))


def replay(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    scheduler: Any,
    trajectories: Sequence[torch.Tensor],
    timesteps: torch.Tensor,
    eta: float,
    *,
    device: torch.device,
    steps: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kept steps under the present weights, with gradient: ([B, S] log-probs in nats summed over channels and pixels, [B, S, C,
    h, w] predictions).

    Args:
        predict: as in ``denoise``.
        scheduler: a fresh DDIM scheduler.
        trajectories: B latents [S+1, C, h, w]; those of a step are moved to the device when it is replayed.
        timesteps: [S].
        eta: that of the sampling.
        device: where ``predict`` works.
        steps: which of the S steps, in this order; None = all.
    """
    scheduler.set_timesteps(len(timesteps), device=device)
    columns, predictions = [], []
    for step in range(len(timesteps)) if steps is None else steps:
        t = timesteps[step]
        x, following = (torch.stack([row[place] for row in trajectories]).to(device) for place in (step, step + 1))
        out = predict(scheduler.scale_model_input(x, t), t.to(device).expand(len(x)))
        mean, deviation = ddim_step(scheduler, out, t, x, eta)
        columns.append(gaussian_log_prob(following, mean, deviation))
        predictions.append(out)
    return torch.stack(columns, dim=1), torch.stack(predictions, dim=1)
