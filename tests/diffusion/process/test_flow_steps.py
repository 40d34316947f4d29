"""Steps of a flow with noise, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from raft_core.errors import ConfigError
from raft_diffusion import PipelineSampling, StochasticSteps
from raft_diffusion.process.flow_steps import draw, replay, step
from raft_diffusion.process.sampler import gaussian_log_prob

X, U = torch.tensor([[1.0]]), torch.tensor([[2.0]])
SIGMAS = torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0])


@pytest.mark.parametrize(
    ("settings", "mean", "deviation"),
    [
        # s = .7·√(.5/.5) = .7, dt = −.1: 1·(1 − .49·.1) + 2·(1 + .49·.5)·(−.1), and .7·√.1
        (StochasticSteps("flow_grpo", 0.7), 0.702, 0.7 * math.sqrt(0.1)),
        # x̂₀ = 1 − .5·2 = 0, score (1 − 0)/.25 = 4: 1 + (2 + ½·.09·4)·(−.1), and .3·√.1
        (StochasticSteps("dance", 0.3), 0.782, 0.3 * math.sqrt(0.1)),
        # ε̂ = 1 + .5·2 = 2, deviation .4·sin(π/4): √(.16 − .08)·2
        (StochasticSteps("cps", 0.5), math.sqrt(0.08) * 2, 0.4 * math.sin(math.pi / 4)),
    ],
)
def test_a_step_by_hand(settings, mean, deviation):
    """σ = ½ → .4, x = 1, u = 2."""
    found = step(X, U, 0.5, 0.4, 0.9, settings)
    assert found[0].item() == pytest.approx(mean, rel=1e-5)
    assert found[1] == pytest.approx(deviation, rel=1e-6)


@pytest.mark.parametrize("kind", ["flow_grpo", "dance", "cps"])
def test_a_step_with_hardly_any_noise_is_eulers(kind):
    mean, deviation = step(X, U, 0.5, 0.4, 0.9, StochasticSteps(kind, 1e-4))
    assert mean.item() == pytest.approx(1 - 0.1 * 2, rel=1e-5)
    assert deviation < 1e-3


def test_flow_grpo_begins_at_pure_noise_with_the_second_share():
    """At σ = 1 the code divides by 1 − σ₁: s = .7·√(1/.1)."""
    _, deviation = step(X, U, 1.0, 0.9, 0.9, StochasticSteps("flow_grpo", 0.7))
    assert deviation == pytest.approx(0.7 * math.sqrt(10) * math.sqrt(0.1))


def test_cps_keeps_the_share_of_noise():
    """x = (1 − σ)x₀ + σε and a network that knows both: at σ' = .4 the mean has √(.16 − s²) of ε and fresh noise s."""
    clean, noise = torch.tensor([[3.0]]), torch.tensor([[-1.0]])
    x = 0.5 * clean + 0.5 * noise
    mean, deviation = step(x, noise - clean, 0.5, 0.4, 0.9, StochasticSteps("cps", 0.8))
    share = (mean - 0.6 * clean) / noise
    assert float(share) ** 2 + deviation**2 == pytest.approx(0.16, rel=1e-5)


@pytest.mark.parametrize("kept_in", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [(0, None), (1, 2)])
def test_what_was_drawn_is_replayed(kept_in, window):
    """Rounded to the precision that latents are kept in before log p is taken: the ratio of a step is 1 to the last digits."""
    settings = StochasticSteps("flow_grpo", 0.7, *window)
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).to(kept_in)

    def velocity(x, sigma):
        return torch.tanh(x) * sigma[:, None, None] - 0.3 * x

    latents, steps = draw(velocity, start, SIGMAS, [5, 6], settings)
    count = 3 if window[1] is None else 2
    assert steps.log_probs.shape == (2, count)
    assert steps.latents.shape == (2, count + 1, 3, 4)
    assert torch.equal(latents.to(kept_in).float(), latents)
    again, predicted = replay(velocity, steps.latents, steps.sigmas, float(SIGMAS[1]), settings)
    assert torch.equal(again, steps.log_probs)
    assert predicted.shape == (2, count, 3, 4)
    last, _ = replay(velocity, steps.latents, steps.sigmas, float(SIGMAS[1]), settings, [count - 1, 0])
    assert torch.equal(last, steps.log_probs[:, [count - 1, 0]])
    alone, _ = draw(velocity, start[1:], SIGMAS, [6], settings)
    assert torch.equal(alone[0], latents[1])


def test_a_log_prob_is_the_gaussians():
    settings = StochasticSteps("dance", 0.5, 0, 1)
    _, steps = draw(lambda x, _: 0 * x, torch.ones(1, 2), SIGMAS, [1], settings)
    second = float(SIGMAS[1])
    mean, deviation = step(steps.latents[:, 0], torch.zeros(1, 2), 1.0, second, second, settings)
    assert torch.equal(steps.log_probs[:, 0], gaussian_log_prob(steps.latents[:, 1], mean, deviation))


def test_settings_that_cannot_be():
    assert list(StochasticSteps().window(4)) == [0, 1, 2]
    assert list(StochasticSteps(first=1, count=2).window(10)) == [1, 2]
    for wrong in ({"noise": 0.0}, {"kind": "cps", "noise": 1.5}, {"first": -1}, {"count": 0}):
        with pytest.raises(ConfigError):
            StochasticSteps(**wrong)
    with pytest.raises(ConfigError, match="only the first 3 can have noise"):
        PipelineSampling(steps=4, stochastic=StochasticSteps(first=3))
