"""Denoising that can be looked at on the way: what each picture is expected to become, and which of them go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.rng import torch_rng
from raft_diffusion.options import Sampling
from raft_diffusion.process.denoise import Prediction
from raft_diffusion.process.sampler import (
    SMALLEST_DEVIATION,
    Predict,
    ddim_step,
    gaussian_log_prob,
    noise_like,
    step_arguments,
)

#: (rows that are left, what each is expected to become [A, C, h, w] on the CPU) → whether each goes on.
GoesOn = Callable[[Sequence[int], torch.Tensor], Sequence[bool]]


@dataclass
class Way:
    """One sample on its way.

    Attributes:
        evaluations: passes of the network so far.
        latents: of the result; of one that was given up, what was expected of it.
        given_up: whether it was.
        kept: traced latents from noise on.
        log_probs: of its steps.
    """

    evaluations: int = 0
    latents: torch.Tensor | None = None
    given_up: bool = False
    kept: list[torch.Tensor] = field(default_factory=list)
    log_probs: list[torch.Tensor] = field(default_factory=list)

    def trajectory(self, timesteps: torch.Tensor, mask: Sequence[bool]) -> dict[str, torch.Tensor]:
        """What a replay needs, as of ``Trajectory``, of this sample alone."""
        return {
            "trajectory": torch.stack(self.kept),
            "timesteps": timesteps,
            "step_log_probs": torch.stack(self.log_probs),
            "step_mask": torch.tensor(mask),
        }


def stage_steps(at: Sequence[float], steps: int) -> list[int]:
    """After how many of the steps each point of the way is; at least 1, and before the last."""
    return sorted({min(max(round(point * steps), 1), steps - 1) for point in at})


@torch.no_grad()
def denoise_in_stages(
    predict_of: Callable[[Sequence[int]], Predict],
    scheduler: Any,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    sampling: Sampling,
    *,
    device: torch.device,
    prediction: Prediction,
    at: Sequence[float],
    goes_on: GoesOn,
    trace: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[list[Way], torch.Tensor, list[bool]]:
    """(the samples, [S] timesteps, [S] whether a step is random). Those that go on are what ``sampler.denoise`` draws.

    Args:
        predict_of: rows that are left → the guided prediction for them.
        prediction: what the network predicts.
        at: points of the way in (0, 1).
        goes_on: asked at each; what is given up is not computed any further.
        Others as of ``sampler.denoise``.
    """
    generators = [torch_rng(seed) for seed in seeds]
    scheduler.set_timesteps(sampling.steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    ways, rows = [Way() for _ in seeds], list(range(len(seeds)))
    x = noise_like(shape, generators).to(device) * scheduler.init_noise_sigma
    looks, count = stage_steps(at, len(scheduler.timesteps)), len(scheduler.timesteps)
    predict, mask = predict_of(rows), []
    _keep(ways, rows, x if trace else None)
    for number, t in enumerate(scheduler.timesteps, start=1):
        scaled = scheduler.scale_model_input(x, t)
        out = predict(scaled, t.expand(len(rows)))
        power = alpha_bar_at(scheduler, number - 1, t)
        extra = step_arguments(scheduler, sampling, [generators[row] for row in rows])
        previous = scheduler.step(out, t, x, return_dict=False, **extra)[0].float()
        if trace:
            mean, deviation = ddim_step(scheduler, out, t, x, sampling.eta)
            _keep(ways, rows, previous, gaussian_log_prob(previous, mean, deviation))
            mask.append(deviation > SMALLEST_DEVIATION)
        x = previous
        for row in rows:
            ways[row].evaluations += 1
        if number in looks:
            expected = clean(scaled, out, power, prediction).cpu()
            verdicts = list(goes_on(rows, expected))
            for row, latents, stays in zip(rows, expected, verdicts, strict=True):
                if not stays:
                    ways[row].latents, ways[row].given_up = latents, True
            left = torch.tensor([i for i, stays in enumerate(verdicts) if stays], dtype=torch.int64, device=device)
            if len(left) < len(rows):
                narrow(scheduler, left, len(rows))
                rows, x = [rows[i] for i in left.tolist()], x[left]
                if not rows:
                    break
                predict = predict_of(rows)
        if on_step is not None:
            on_step(number, count)
    for row, latents in zip(rows, x.cpu(), strict=True):
        ways[row].latents = latents
    return ways, scheduler.timesteps.cpu(), mask


def _keep(ways: Sequence[Way], rows: Sequence[int], x: torch.Tensor | None, log_probs: torch.Tensor | None = None) -> None:
    """Note what a trace keeps of a step."""
    if x is None:
        return
    for place, row in enumerate(rows):
        ways[row].kept.append(x[place].cpu())
        if log_probs is not None:
            ways[row].log_probs.append(log_probs[place].cpu())


def alpha_bar_at(scheduler: Any, step: int, t: torch.Tensor) -> float:
    """ᾱ of what the network is shown in a step, counted from 0: of schedulers that go by σ = √((1 − ᾱ)/ᾱ), 1/(1 + σ²)."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        return 1 / (1 + float(sigmas[step]) ** 2)
    return float(scheduler.alphas_cumprod[int(t)])


def clean(scaled: torch.Tensor, out: torch.Tensor, power: float, prediction: Prediction) -> torch.Tensor:
    """x̂₀ from x_t = √ᾱ·x₀ + √(1 − ᾱ)·ε and what the network says of it, in the same shape.

    Raises:
        ModelError: the network predicts a flow, whose x_t is another.

    Source: Salimans & Ho 2022 (2202.00512), appendix D.
    """
    signal, noise = power**0.5, (1 - power) ** 0.5
    scaled, out = scaled.float(), out.float()
    if prediction == "epsilon":
        return (scaled - noise * out) / signal
    if prediction == "sample":
        return out
    if prediction == "flow":
        raise ModelError(
            "what is expected of a picture on the way is not known here of models that predict a flow: use FromPolicy"
        )
    return signal * scaled - noise * out


def narrow(scheduler: Any, left: torch.Tensor, count: int) -> None:
    """Let a scheduler forget the samples that are given up: whatever it remembers of each of ``count``, picture by picture.

    Args:
        left: [A] places of those that stay.
    """

    def of_those_left(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim == 4 and len(value) == count:
            return value[left]
        return [of_those_left(each) for each in value] if isinstance(value, list) else value

    for name, value in vars(scheduler).items():
        setattr(scheduler, name, of_those_left(value))
