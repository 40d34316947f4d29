"""Preference losses and policy gradients on Stable Diffusions: shared draws, replayed steps, references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raft_core.config.run_config import disagreements
from raft_core.errors import ModelError
from raft_core.objectives.dpo import Dpo
from raft_core.objectives.kto import Kto
from raft_core.objectives.orpo import Orpo
from raft_core.objectives.policy_gradient import PolicyGradient
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.training.reference import Follower, Reference
from raft_core.types import Advantages, Labels, Pairs, Prompt

PART = Pairs(np.array([0, 2]), np.array([1, 3]), np.ones(2))


def drawn(policy, *, trace=False):
    return policy.sample(requests([Prompt("a red star"), Prompt("a blue star")], 2, 0, 1), trace=trace)


def gradient(policy, losses):
    found = torch.autograd.grad(losses.sum(), [*policy.trainable().values()], allow_unused=True)
    pairs = zip(policy.trainable().values(), found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_dpo_is_of_errors_at_one_timestep_and_noise_for_both_of_a_pair_and_for_the_reference(load, kind):
    policy = load(kind, lora=None)
    samples = drawn(policy)
    assert Dpo()(policy, samples, PART, [3, 4]).tolist() == pytest.approx([math.log(2)] * 2, rel=1e-4)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
        draw = policy.draw(samples, [3, 3, 4, 4])  # the two of a pair together
        delta = policy.nll(samples, draw, reference=True) - policy.nll(samples, draw)
    expected = -torch.nn.functional.logsigmoid(2500 * (delta[0::2] - delta[1::2]))
    close(Dpo()(policy, samples, PART, [3, 4]), expected, 1e-3)
    assert expected.std() > 1e-3


def test_diffusion_kto_has_a_reference_point_of_the_batch(load):
    policy = load("sd1", lora=None)
    samples, part = drawn(policy), Labels(np.arange(4), np.array([True, False, True, False]))
    assert Kto()(policy, samples, part, range(4)).tolist() == pytest.approx([0.5] * 4, rel=1e-4)
    assert Kto(point="mismatched")(policy, samples, part, range(4)).tolist() == pytest.approx([0.5] * 4, rel=1e-4)


def test_odds_of_pictures_are_refused_before_weights_load():
    from raft_diffusion import StableDiffusion

    (mistake,) = disagreements({"objective": Orpo(), "policy": StableDiffusion("bundled:shapes")})
    assert "mean squared error of denoising: use Dpo" in mistake
    (mistake,) = disagreements({"objective": Dpo(per_token=True), "policy": StableDiffusion("bundled:shapes")})
    assert "objective.per_token" in mistake


@pytest.mark.parametrize(
    "objective",
    [
        PolicyGradient(ratio="element", clip=1e-4, average="samples"),
        PolicyGradient(beta=0.5, kl="prediction"),
        PolicyGradient(ratio="element", beta=0.5, kl="k3", average="samples"),
    ],
    ids=["DDPO", "held by predictions", "held by k3"],
)
def test_steps_differentiated_one_by_one_have_the_gradient_of_all_at_once(load, objective):
    policy = load("sd1", sampling={"eta": 1.0, "guidance_scale": 2.0}, lora=None)
    samples, part = drawn(policy, trace=True), Advantages(np.arange(4), np.array([1.0, -1.0, 0.5, 2.0]))
    with torch.no_grad():  # away from the reference, and a little from where they were drawn
        for parameter in policy.trainable().values():
            parameter.add_(1e-4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    whole = gradient(policy, objective(policy, samples, part, range(4)))
    rnd = objective.begin(policy, samples, part, {})
    passes = rnd.passes(policy, samples, part)
    counted = int(samples[0].tensors["step_mask"].sum())
    assert len(passes) == counted
    apart = sum(gradient(policy, one(policy, samples, part, range(4))) for one in passes)
    close(apart, whole, 1e-3)
    assert whole.abs().max() > 0
    figures = rnd.figures()
    assert figures["policy/replay_error"] > 0 and figures.get("policy/kl", 1) > 0


def test_predictions_of_the_start_and_of_a_following_reference(load):
    policy = load("sd1", sampling={"eta": 1.0}, lora=None)
    samples = drawn(policy, trace=True)
    with torch.no_grad():
        log_probs, own, mask = policy.step_predictions(samples)
        assert own.shape == (4, 3, 4, 16, 16) and mask.shape == log_probs.shape == (4, 3)
        close(policy.step_predictions(samples, reference=True)[1], own)
        close(policy.step_log_probs(samples, steps=[2, 0])[0], log_probs[:, [2, 0]])
        follower = Follower(Reference(every=1), policy.trainable)
        for parameter in policy.trainable().values():
            parameter.add_(0.05)
        follower.begin(2)
        view = follower.seen_by(policy)
        close(view.step_predictions(samples, reference=True)[1], policy.step_predictions(samples)[1])
        assert (policy.step_predictions(samples, reference=True)[1] - policy.step_predictions(samples)[1]).abs().max() > 1e-3


def test_a_replay_under_other_guidance_stops_before_the_first_update(load):
    policy = load("sd1", sampling={"eta": 1.0, "guidance_scale": 7.0})
    samples, part = drawn(policy, trace=True), Advantages(np.arange(4), np.ones(4))
    other = load("sd1", sampling={"eta": 1.0, "guidance_scale": 1.0})
    rnd = PolicyGradient(ratio="element").begin(other, samples, part, {})
    with pytest.raises(ModelError, match=r"guidance_scale: 7\.0 when drawn, 1\.0 now"):
        for one in rnd.passes(other, samples, part):
            one(other, samples, part, range(4))
