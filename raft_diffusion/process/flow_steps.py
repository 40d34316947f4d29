"""Denoising a flow with noise in its steps, so that each has a log-probability; and the log-probabilities of steps made before.

Notation: x_σ = (1 − σ)·x₀ + σ·ε, the network predicts u = ε − x₀, dt = σ' − σ < 0; x̂₀ = x − σ·u, ε̂ = x + (1 − σ)·u. All is
computed in float32, and a step's result is rounded to the precision that the pipeline keeps latents in before its
log-probability is taken: what is replayed is then what was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from raft_core.rng import torch_rng
from raft_diffusion.pipeline_options import StochasticSteps
from raft_diffusion.process.sampler import gaussian_log_prob, noise_like

#: (x [B, …] float32, σ [B]) → u of that shape, guidance included.
Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class NoisySteps:
    """The steps with noise of a sampling, on the CPU.

    Attributes:
        latents: [B, W + 1, …] before and after each of them.
        sigmas: [W + 1] shares of noise there.
        log_probs: [B, W] in nats, summed over the latents' elements.
    """

    latents: torch.Tensor
    sigmas: torch.Tensor
    log_probs: torch.Tensor


def step(
    x: torch.Tensor, u: torch.Tensor, sigma: float, following: float, second: float, settings: StochasticSteps
) -> tuple[torch.Tensor, float]:
    """Mean [B, …] and deviation of the latents at ``following``, given those at ``sigma`` and the network's prediction.

    Args:
        x: [B, …] float32.
        u: [B, …] predicted velocity.
        sigma: σ in (0, 1].
        following: σ' in (0, σ).
        second: of the sampling's σ, the one after the first; stands for σ = 1 where Flow-GRPO would divide by 0.
        settings: kind and noise.

    Source: Flow-GRPO (2505.05470), equation 9, and its code, ``sd3_sde_with_logprob``; DanceGRPO (2505.07818), equation 8; CPS
    (2509.05952), coefficients-preserving sampling. Differs: log-probs are those of the Gaussian, summed, for all three.
    """
    dt = following - sigma
    clean, noise = x - sigma * u, x + (1 - sigma) * u
    if settings.kind == "flow_grpo":
        scale = settings.noise * math.sqrt(sigma / (1 - (second if sigma >= 1 else sigma)))
        drift = scale**2 / (2 * sigma)
        return x * (1 + drift * dt) + u * (1 + drift * (1 - sigma)) * dt, scale * math.sqrt(-dt)
    if settings.kind == "dance":
        score = (x - (1 - sigma) * clean) / sigma**2
        return x + (u + 0.5 * settings.noise**2 * score) * dt, settings.noise * math.sqrt(-dt)
    deviation = following * math.sin(settings.noise * math.pi / 2)
    return (1 - following) * clean + math.sqrt(max(following**2 - deviation**2, 0.0)) * noise, deviation


@torch.no_grad()
def draw(
    velocity: Velocity,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    seeds: Sequence[int],
    settings: StochasticSteps,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[torch.Tensor, NoisySteps]:
    """Latents [B, …] float32 on the CPU, and the steps with noise that led to them; the other steps are Euler's.

    Args:
        velocity: the network, guided.
        x: [B, …] initial noise in the precision in which the pipeline keeps latents.
        sigmas: [S + 1] from the first share of noise to 0.
        seeds: B seeds; the noise of a sample's steps comes from its own CPU generator, in order.
        settings: which steps have noise, and how much.
        on_step: told how many steps are done, and of how many.
    """
    kept_in, steps = x.dtype, len(sigmas) - 1
    window = settings.window(steps)
    generators = [torch_rng(seed) for seed in seeds]
    for generator in generators:  # those that drew the initial noise begin alike
        generator.manual_seed(generator.initial_seed() ^ 0x5DEECE66D)
    x = x.float()
    kept, log_probs = [], []
    for place in range(steps):
        sigma, following = float(sigmas[place]), float(sigmas[place + 1])
        u = velocity(x, torch.full((len(x),), sigma, device=x.device))
        if place not in window:
            x = (x + (following - sigma) * u).to(kept_in).float()
        else:
            mean, deviation = step(x, u, sigma, following, float(sigmas[1]), settings)
            if not kept:
                kept.append(x.cpu())
            noise = noise_like(tuple(x.shape[1:]), generators).to(x.device)
            x = (mean + deviation * noise).to(kept_in).float()
            log_probs.append(gaussian_log_prob(x, mean, deviation).cpu())
            kept.append(x.cpu())
        if on_step is not None:
            on_step(place + 1, steps)
    inside = sigmas[window.start : window.stop + 1].clone()
    return x.cpu(), NoisySteps(torch.stack(kept, dim=1), inside, torch.stack(log_probs, dim=1))


def replay(
    velocity: Velocity,
    latents: torch.Tensor,
    sigmas: torch.Tensor,
    second: float,
    settings: StochasticSteps,
    steps: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, S] log-probs of kept steps in nats, summed over the latents' elements, and [B, S, …] the network's predictions there.

    Both are those of the present weights, with gradient.

    Args:
        velocity: as in ``draw``.
        latents: [B, W + 1, …] float32 on the device.
        sigmas: [W + 1].
        second: the sampling's σ after the first.
        settings: those of the sampling.
        steps: places of S of the W steps, in this order; None = all. Memory grows with their number.
    """
    columns, predictions = [], []
    for place in range(len(sigmas) - 1) if steps is None else steps:
        sigma, following = float(sigmas[place]), float(sigmas[place + 1])
        x = latents[:, place]
        u = velocity(x, torch.full((len(x),), sigma, device=x.device))
        mean, deviation = step(x, u, sigma, following, second, settings)
        columns.append(gaussian_log_prob(latents[:, place + 1], mean, deviation))
        predictions.append(u)
    return torch.stack(columns, dim=1), torch.stack(predictions, dim=1)
