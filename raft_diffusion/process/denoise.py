"""The denoising surrogate of −log p, as mathematics: weights, guidance, error. How noise is mixed in is the noise process's.

Notation: x_t = α·x₀ + σ·ε, SNR = α² / σ².
"""

from __future__ import annotations

import math
from typing import Literal

import torch

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


def broadcast(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] as [B, 1, …] with as many axes as ``like``."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def min_snr_weight(snr: torch.Tensor, gamma: float, prediction: Prediction) -> torch.Tensor:
    """[B] weights that make each prediction's squared error count as an x₀ error weighted by min(SNR, γ).

    The squared error of ε is SNR times that of x₀, that of v is SNR + 1 times, that of a flow's velocity (√SNR + 1)² times, so
    the weight is divided by as much.

    Args:
        snr: [B] ≥ 0.
        gamma: γ > 0, usually 5.
        prediction: what the network predicts.

    Source: Hang et al. 2023 (2303.09556), section 3.4.
    """
    capped = snr.clamp(max=gamma)
    if prediction == "epsilon":
        return capped / snr.clamp(min=1e-8)
    if prediction == "sample":
        return capped
    if prediction == "flow":
        return capped / (snr.sqrt() + 1).square()
    return capped / (snr + 1)


def flow_weight(sigma: torch.Tensor, scheme: str) -> torch.Tensor:
    """[B] weights of a flow's squared error at shares of noise [B]: sigma_sqrt, cosmap or clean.

    Source: Esser et al. 2024 (2403.03206), section 3.1; ``compute_loss_weighting_for_sd3`` of diffusers. ``clean`` is the error
    of x̂₀ = x − σ·u, which its script for Stable Diffusion 3 minimises (``precondition_outputs``).
    """
    if scheme == "sigma_sqrt":
        return sigma.clamp(min=1e-4) ** -2
    if scheme == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2))
    return sigma**2


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
