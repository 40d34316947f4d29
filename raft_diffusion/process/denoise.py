"""The denoising surrogate of −log p, as mathematics: noising, targets, weights, guidance.

Notation: ᾱ is the cumulated signal power at a timestep, x_t = √ᾱ·x₀ + √(1−ᾱ)·ε, SNR = ᾱ / (1−ᾱ).
"""

from __future__ import annotations

from typing import Literal

import torch

Prediction = Literal["epsilon", "v_prediction", "sample"]


def broadcast(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] as [B, 1, …] with as many axes as ``like``."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def noised(latents: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """x_t [B, C, h, w] from x₀ and ε of that shape and ᾱ [B]."""
    alpha_bar = broadcast(alpha_bar, latents)
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def target(latents: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor, prediction: Prediction) -> torch.Tensor:
    """What the network should say of x_t [B, C, h, w]: ε, v = √ᾱ·ε − √(1−ᾱ)·x₀, or x₀.

    Source: Salimans & Ho 2022 (2202.00512), appendix D.
    """
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return latents
    alpha_bar = broadcast(alpha_bar, latents)
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * latents


def min_snr_weight(alpha_bar: torch.Tensor, gamma: float, prediction: Prediction) -> torch.Tensor:
    """[B] weights that make each prediction's squared error count as an x₀ error weighted by min(SNR, γ).

    The squared error of ε is SNR times that of x₀, that of v is SNR + 1 times, so the weight is divided by as much.

    Args:
        alpha_bar: [B] in [0, 1].
        gamma: γ > 0, usually 5.
        prediction: what the network predicts.

    Source: Hang et al. 2023 (2303.09556), section 3.4.
    """
    snr = alpha_bar / (1 - alpha_bar).clamp(min=1e-8)
    capped = snr.clamp(max=gamma)
    if prediction == "epsilon":
        return capped / snr.clamp(min=1e-8)
    if prediction == "sample":
        return capped
    return capped / (snr + 1)


def guided(unconditional: torch.Tensor, conditional: torch.Tensor, scale: float, rescale: float = 0.0) -> torch.Tensor:
    """Classifier-free guidance u + w·(c − u), its deviation pulled back towards the conditional one's by ``rescale``.

    Args:
        unconditional: [B, C, h, w] prediction without the prompt, or for the negative prompt.
        conditional: [B, C, h, w] prediction for the prompt.
        scale: w; at 1 this is the conditional prediction.
        rescale: φ in [0, 1].

    Source: Ho & Salimans 2022 (2207.12598); rescaling: Lin et al. 2023 (2305.08891), section 3.4.
    """
    mixed = unconditional + scale * (conditional - unconditional)
    if rescale == 0:
        return mixed
    axes = tuple(range(1, mixed.ndim))
    ratio = conditional.std(dim=axes, keepdim=True) / mixed.std(dim=axes, keepdim=True)
    return rescale * mixed * ratio + (1 - rescale) * mixed


def denoising_error(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """[B] squared error, mean over channels and pixels, in float32."""
    return (predicted.float() - wanted.float()).square().flatten(1).mean(dim=1)
