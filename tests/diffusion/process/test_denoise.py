"""The denoising mathematics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from raft_core.testing import close
from raft_diffusion import Sampling
from raft_diffusion.process import denoise
from raft_diffusion.process.noise import RectifiedFlow, VariancePreserving, clean_from, noised, shifted, target
from raft_diffusion.process.sampler import denoise as denoise_loop
from raft_diffusion.process.sampler import gaussian_log_prob
from raft_diffusion.process.schedulers import make_scheduler


def tensor(*values):
    return torch.tensor(values).reshape(len(values), 1, 1, 1)


def process_at(alpha_bar, prediction="epsilon"):
    """A diffusion of one timestep."""
    return VariancePreserving(torch.as_tensor([alpha_bar]), prediction)


FIRST = torch.tensor([0])


def test_noising_and_targets_by_hand():
    """ᾱ = 0.64: x_t = 0.8·x₀ + 0.6·ε; with x₀ = 1, ε = 2: x_t = 2, v = 0.8·2 − 0.6·1 = 1."""
    latents, noise = tensor(1.0), tensor(2.0)
    assert noised(process_at(0.64), latents, noise, FIRST).item() == pytest.approx(2.0)
    wanted = {"epsilon": 2.0, "sample": 1.0, "v_prediction": 1.0}
    for prediction, value in wanted.items():
        assert target(process_at(0.64, prediction), latents, noise, FIRST).item() == pytest.approx(value)


def test_a_flow_by_hand():
    """σ = ¼: x = ¾·1 + ¼·2 = 1.25, velocity 2 − 1 = 1, x̂₀ = 1.25 − ¼·1 = 1, SNR = 9; the scheduler counts 250."""
    flow, latents, noise, times = RectifiedFlow(), tensor(1.0), tensor(2.0), torch.tensor([0.25])
    assert noised(flow, latents, noise, times).item() == 1.25
    assert target(flow, latents, noise, times).item() == 1.0
    assert clean_from(flow, tensor(1.0), tensor(1.25), times).item() == 1.0
    assert flow.snr(times).item() == pytest.approx(9.0)
    assert flow.network_times(times).item() == 250.0


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_times_of_a_flow_follow_their_density():
    """σ ≤ ½: half of the draws when uniform, a quarter with shift 3 (u ≤ ¼); logit-normal has 68 % within sigmoid(±1)."""
    count = 4000
    uniform = RectifiedFlow().draw_times(generators(count))
    assert uniform.min() > 0 and uniform.max() <= 1
    assert float((uniform <= 0.5).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((RectifiedFlow(shift=3.0).draw_times(generators(count)) <= 0.5).float().mean()) == pytest.approx(
        0.25, abs=0.03
    )
    middle = RectifiedFlow("logit_normal").draw_times(generators(count))
    inside = (middle > torch.sigmoid(torch.tensor(-1.0))) & (middle < torch.sigmoid(torch.tensor(1.0)))
    assert float(inside.float().mean()) == pytest.approx(0.683, abs=0.03)
    at = RectifiedFlow("inference", inference=lambda: torch.tensor([0.9, 0.4])).draw_times(generators(50))
    assert set(at.tolist()) == set(torch.tensor([0.9, 0.4]).tolist())


def test_a_shift_leaves_the_ends():
    """s = 3 at σ = ½: 1.5 / 2 = ¾."""
    assert shifted(torch.tensor([0.0, 0.5, 1.0]), 3.0).tolist() == [0.0, 0.75, 1.0]


def test_min_snr_weights_by_hand():
    """SNR 9, γ = 5 caps it: ε 5/9, x₀ 5, v 5/10, velocity 5/(3 + 1)². SNR 1 is not capped: ε 1, x₀ 1, v 1/2, velocity ¼."""
    snr = torch.tensor([9.0, 1.0])
    assert denoise.min_snr_weight(snr, 5.0, "epsilon").tolist() == pytest.approx([5 / 9, 1.0])
    assert denoise.min_snr_weight(snr, 5.0, "sample").tolist() == pytest.approx([5.0, 1.0])
    assert denoise.min_snr_weight(snr, 5.0, "v_prediction").tolist() == pytest.approx([0.5, 0.5])
    assert denoise.min_snr_weight(snr, 5.0, "flow").tolist() == pytest.approx([5 / 16, 0.25])


@pytest.mark.parametrize("alpha_bar", [0.05, 0.3, 0.7, 0.99])
def test_weighted_losses_agree_whatever_is_predicted(alpha_bar):
    """One guess of x₀, put as ε and as v, has the same weighted error: the weights undo the change of variables."""
    a = torch.tensor(alpha_bar, dtype=torch.float64)
    latents, noise, guess = (value.double() for value in (tensor(0.3), tensor(-1.2), tensor(0.8)))
    x = noised(process_at(a), latents, noise, FIRST)
    as_noise = (x - a.sqrt() * guess) / (1 - a).sqrt()
    predicted = {"sample": guess, "epsilon": as_noise, "v_prediction": a.sqrt() * as_noise - (1 - a).sqrt() * guess}
    losses = []
    for kind, value in predicted.items():
        process = process_at(a, kind)
        assert clean_from(process, value, x, FIRST).item() == pytest.approx(0.8)
        weight = denoise.min_snr_weight(process.snr(FIRST), 5.0, kind)
        losses.append(float((value - target(process, latents, noise, FIRST)).square() * weight))
    assert losses == pytest.approx([losses[0]] * 3)


def test_a_flow_weighs_a_guess_as_diffusion_does():
    """At the same SNR, the same error of x̂₀ costs the same: SNR 1 is σ = ½ of a flow."""
    flow, times = RectifiedFlow(), torch.tensor([0.5])
    latents, noise, guess = tensor(0.3), tensor(-1.2), tensor(0.8)
    x = noised(flow, latents, noise, times)
    error = ((x - guess) / 0.5 - target(flow, latents, noise, times)).square()
    weighted = float(error * denoise.min_snr_weight(flow.snr(times), 5.0, "flow"))
    assert weighted == pytest.approx((0.8 - 0.3) ** 2)


def test_weights_hold_at_zero_terminal_snr():
    """ᾱ = 0 (pure noise) carries no signal: v is trained with weight 0, and nothing is undefined."""
    process = VariancePreserving(torch.tensor([0.0, 1.0]), "epsilon")
    snr = process.snr(torch.tensor([0, 1]))
    weights = [denoise.min_snr_weight(snr, 5.0, kind) for kind in ("v_prediction", "sample", "epsilon")]
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
