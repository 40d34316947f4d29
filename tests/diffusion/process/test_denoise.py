"""The denoising mathematics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from raft_core.testing import close
from raft_diffusion import Sampling
from raft_diffusion.process import denoise
from raft_diffusion.process.sampler import denoise as denoise_loop
from raft_diffusion.process.sampler import gaussian_log_prob
from raft_diffusion.process.schedulers import make_scheduler


def tensor(*values):
    return torch.tensor(values).reshape(len(values), 1, 1, 1)


def test_noising_and_targets_by_hand():
    """ᾱ = 0.64: x_t = 0.8·x₀ + 0.6·ε; with x₀ = 1, ε = 2: x_t = 2, v = 0.8·2 − 0.6·1 = 1."""
    alpha_bar, latents, noise = torch.tensor([0.64]), tensor(1.0), tensor(2.0)
    assert denoise.noised(latents, noise, alpha_bar).item() == pytest.approx(2.0)
    assert denoise.target(latents, noise, alpha_bar, "epsilon").item() == 2.0
    assert denoise.target(latents, noise, alpha_bar, "sample").item() == 1.0
    assert denoise.target(latents, noise, alpha_bar, "v_prediction").item() == pytest.approx(1.0)


def test_min_snr_weights_by_hand():
    """ᾱ = 0.9: SNR = 9. γ = 5 caps it: ε 5/9, x₀ 5, v 5/10. ᾱ = 0.5: SNR = 1, uncapped: ε 1, x₀ 1, v 1/2."""
    alpha_bar = torch.tensor([0.9, 0.5])
    assert denoise.min_snr_weight(alpha_bar, 5.0, "epsilon").tolist() == pytest.approx([5 / 9, 1.0])
    assert denoise.min_snr_weight(alpha_bar, 5.0, "sample").tolist() == pytest.approx([5.0, 1.0])
    assert denoise.min_snr_weight(alpha_bar, 5.0, "v_prediction").tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("alpha_bar", [0.05, 0.3, 0.7, 0.99])
def test_weighted_losses_agree_whatever_is_predicted(alpha_bar):
    """One guess of x₀, put as ε and as v, has the same weighted error: the weights undo the change of variables."""
    a = torch.tensor([alpha_bar], dtype=torch.float64)
    latents, noise, guess = (value.double() for value in (tensor(0.3), tensor(-1.2), tensor(0.8)))
    x = denoise.noised(latents, noise, a)
    as_noise = (x - a.sqrt() * guess) / (1 - a).sqrt()
    predicted = {"sample": guess, "epsilon": as_noise, "v_prediction": a.sqrt() * as_noise - (1 - a).sqrt() * guess}
    losses = [
        float((predicted[kind] - denoise.target(latents, noise, a, kind)).square() * denoise.min_snr_weight(a, 5.0, kind))
        for kind in predicted
    ]
    assert losses == pytest.approx([losses[0]] * 3)


def test_weights_hold_at_zero_terminal_snr():
    """ᾱ = 0 (pure noise) carries no signal: v is trained with weight 0, and nothing is undefined."""
    weights = [denoise.min_snr_weight(torch.tensor([0.0, 1.0]), 5.0, kind) for kind in ("v_prediction", "sample", "epsilon")]
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert weights[0][0] == 0


def test_every_step_is_taken_when_the_first_two_timesteps_are_the_same():
    """As "beta" sigmas have it, once rounded: the first step is not skipped, and the last finds its end."""
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    sampling = Sampling(scheduler="dpm++", steps=50, options={"use_beta_sigmas": True})
    scheduler = make_scheduler(config, sampling)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    scheduler = make_scheduler(config, sampling)
    seen = []

    def predict(x, _):
        seen.append(scheduler.step_index)
        return torch.zeros_like(x)

    latents, _ = denoise_loop(predict, scheduler, [0], (1, 2, 2), sampling, device=torch.device("cpu"))
    assert scheduler.step_index == 50
    assert seen == [None, *range(1, 50)]
    assert torch.isfinite(latents).all()


def test_guidance_by_hand():
    """u = 1, c = 2, w = 3: 1 + 3·(2 − 1) = 4."""
    assert denoise.guided(tensor(1.0), tensor(2.0), 3.0).item() == 4.0
    assert denoise.guided(tensor(1.0), tensor(2.0), 1.0).item() == 2.0


def test_full_rescaling_gives_the_conditional_deviation():
    generator = torch.Generator().manual_seed(0)
    u, c = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    rescaled = denoise.guided(u, c, 5.0, rescale=1.0)
    assert torch.allclose(rescaled.flatten(1).std(dim=1), c.flatten(1).std(dim=1), rtol=1e-4)
    half = denoise.guided(u, c, 5.0, rescale=0.5)
    close(half, 0.5 * rescaled + 0.5 * denoise.guided(u, c, 5.0))


def test_the_error_is_a_mean_per_sample():
    predicted, wanted = torch.zeros(2, 1, 2, 2), torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 0.0, 0.0]]).reshape(2, 1, 2, 2)
    assert denoise.denoising_error(predicted, wanted).tolist() == [1.0, 1.0]


def test_gaussian_log_prob_by_hand():
    """Two elements at distance σ from the mean, σ = 2: 2·(−½ − log 2 − ½·log 2π)."""
    x, mean = torch.tensor([[[[2.0, -2.0]]]]), torch.zeros(1, 1, 1, 2)
    expected = 2 * (-0.5 - math.log(2) - 0.5 * math.log(2 * math.pi))
    assert gaussian_log_prob(x, mean, 2.0).item() == pytest.approx(expected)
    assert gaussian_log_prob(x, mean, 0.0).item() == 0.0
