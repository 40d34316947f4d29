"""How clean latents become noise, and what a network says of the mixture: x_t = α·x₀ + σ·ε.

A noise process knows α and σ at a time, and what the network predicts there: ε, x₀, v = α·ε − σ·x₀, or the velocity of a flow,
u = ε − x₀. All that is trained (denoising losses, preferences, weights by the signal-to-noise ratio) is written in these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

from raft_core.errors import ModelError
from raft_diffusion.process.denoise import Prediction, broadcast

TimeDraw = Literal["uniform", "logit_normal", "inference"]


class NoiseProcess(Protocol):
    """A way from clean latents to noise.

    Attributes:
        prediction: what the network predicts.
    """

    @property
    def prediction(self) -> Prediction: ...

    def draw_times(self, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """[B] times for training, each from its own CPU generator."""
        ...

    def coefficients(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """α and σ at times [B], each [B] float32."""
        ...

    def snr(self, times: torch.Tensor) -> torch.Tensor:
        """[B] signal-to-noise ratio α²/σ²."""
        ...

    def network_times(self, times: torch.Tensor) -> torch.Tensor:
        """[B] times as the model's scheduler counts them."""
        ...


@dataclass(frozen=True, eq=False)
class VariancePreserving:
    """Diffusion with α² + σ² = 1, by a table of cumulated signal powers ᾱ = α².

    Attributes:
        alpha_bar: [T] float32, where the latents are.
        prediction: epsilon, v_prediction or sample.
    """

    alpha_bar: torch.Tensor
    prediction: Prediction

    def draw_times(self, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """[B] int64, uniform in 0 … T − 1."""
        return torch.cat([torch.randint(len(self.alpha_bar), (1,), generator=generator) for generator in generators])

    def coefficients(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        power = self.alpha_bar[times]
        return power.sqrt(), (1 - power).sqrt()

    def snr(self, times: torch.Tensor) -> torch.Tensor:
        power = self.alpha_bar[times]
        return power / (1 - power).clamp(min=1e-8)

    def network_times(self, times: torch.Tensor) -> torch.Tensor:
        return times


@dataclass(frozen=True, eq=False)
class RectifiedFlow:
    """The straight line x_σ = (1 − σ)·x₀ + σ·ε; a time is the share of noise σ itself.

    Attributes:
        draw: how σ is drawn in training: uniform; logit_normal, σ = sigmoid(normal), which prefers the middle; inference, one
            of the σ at which sampling evaluates the network.
        shift: s of σ ← s·σ / (1 + (s − 1)·σ), applied to a uniform or logit-normal σ; above 1 it prefers noise.
        mean: of the normal of logit_normal.
        deviation: of the same, > 0.
        inference: gives the σ of a sampling, for the draw of that name.
        scale: what the model's scheduler calls σ = 1.

    Source: Esser et al. 2024 (2403.03206), sections 3.1 and 5.3.2.
    """

    draw: TimeDraw = "uniform"
    shift: float = 1.0
    mean: float = 0.0
    deviation: float = 1.0
    inference: Callable[[], torch.Tensor] | None = None
    scale: float = 1000.0
    prediction: Prediction = field(default="flow", init=False)

    def draw_times(self, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """[B] float32 in [0, 1]."""
        if self.draw == "inference":
            if self.inference is None:
                raise ModelError("times are to be drawn from those of the sampling, but nothing tells them")
            times = self.inference()
            places = [torch.randint(len(times), (1,), generator=generator) for generator in generators]
            return times[torch.cat(places)]
        if self.draw == "logit_normal":
            normal = torch.cat([torch.randn(1, generator=generator) for generator in generators])
            return shifted(torch.sigmoid(self.mean + self.deviation * normal), self.shift)
        return shifted(1 - torch.cat([torch.rand(1, generator=generator) for generator in generators]), self.shift)

    def coefficients(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 - times, times

    def snr(self, times: torch.Tensor) -> torch.Tensor:
        return ((1 - times) / times.clamp(min=1e-4)).square()

    def network_times(self, times: torch.Tensor) -> torch.Tensor:
        return times * self.scale


def shifted(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """σ pushed towards noise by a shift above 1; the ends stay.

    Source: Esser et al. 2024 (2403.03206), equation 23.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def noised(process: NoiseProcess, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """x_t [B, …] from x₀ and ε of that shape at times [B]."""
    alpha, sigma = (broadcast(value, latents) for value in process.coefficients(times))
    return alpha * latents + sigma * noise


def target(process: NoiseProcess, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """What the network should say of x_t [B, …].

    Source: Salimans & Ho 2022 (2202.00512), appendix D; the flow's velocity: Esser et al. 2024 (2403.03206), section 2.
    """
    if process.prediction == "epsilon":
        return noise
    if process.prediction == "sample":
        return latents
    if process.prediction == "flow":
        return noise - latents
    alpha, sigma = (broadcast(value, latents) for value in process.coefficients(times))
    return alpha * noise - sigma * latents


def clean_from(process: NoiseProcess, predicted: torch.Tensor, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """x̂₀ [B, …] that a prediction at x_t implies; for ε it is unbounded where no signal is left (α = 0)."""
    alpha, sigma = (broadcast(value, x) for value in process.coefficients(times))
    if process.prediction == "sample":
        return predicted
    if process.prediction == "flow":
        return x - sigma * predicted
    if process.prediction == "epsilon":
        return (x - sigma * predicted) / alpha
    return alpha * x - sigma * predicted
