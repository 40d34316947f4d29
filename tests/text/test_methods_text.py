"""Preference losses on language models: sums of token log-probs, mismatched prompts, groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raft_core.objectives.dpo import Dpo
from raft_core.objectives.kto import Kto, mismatched
from raft_core.objectives.orpo import Orpo
from raft_core.objectives.policy_gradient import PolicyGradient
from raft_core.objectives.ranking import Rrhf
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Advantages, Groups, Labels, Pairs, Prompt

PART = Pairs(np.array([0, 2]), np.array([1, 3]), np.ones(2))


@pytest.fixture(scope="module")
def moved(load):
    """A policy some way from its start, with four samples that it drew there."""
    policy = load("llama", lora=None)
    samples = policy.sample(requests([Prompt("say one"), Prompt("say it twice")], 2, 0, 1))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return policy, samples


def rows(policy, samples, reference=False):
    values, mask = policy.token_log_probs(samples, reference=reference)
    return [row[there].detach().double() for row, there in zip(values, mask, strict=True)]


def test_dpo_is_of_the_sums_of_token_log_probs_or_of_their_means(moved):
    policy, samples = moved
    own, start = rows(policy, samples), rows(policy, samples, reference=True)
    for per_token in (False, True):
        ratios = [float((a - b).mean() if per_token else (a - b).sum()) for a, b in zip(own, start, strict=True)]
        expected = [math.log1p(math.exp(-0.1 * (ratios[i] - ratios[j]))) for i, j in ((0, 1), (2, 3))]
        close(Dpo(per_token=per_token)(policy, samples, PART, [0, 1]), np.array(expected))
    assert max(map(abs, ratios)) > 1e-3


def test_a_mismatched_completion_is_read_behind_the_other_prompt(moved):
    policy, samples = moved
    found = mismatched(samples)
    direct = policy.written([found[0].request], [""])  # the same prompt, whatever its answer
    assert direct[0].prompt.text == "say one" and found[0].tensors["tokens"].equal(samples[2].tensors["tokens"])
    with torch.no_grad():
        assert not policy.nll([found[0]], None).equal(policy.nll([samples[2]], None))
    part = Labels(np.arange(4), np.array([True, False, True, False]))
    point = Kto().reference_point(policy, samples, part, range(4))
    apart = [float((a - b).sum()) for a, b in zip(rows(policy, found), rows(policy, found, reference=True), strict=True)]
    assert point == pytest.approx(max(0.0, np.mean(apart)), rel=1e-4, abs=1e-6)


def test_odds_and_ranks_are_of_means_over_tokens(moved):
    policy, samples = moved
    means = [float(row.mean()) for row in rows(policy, samples)]
    odds = [mean - math.log1p(-math.exp(mean)) for mean in means]
    expected = [-means[i] + 0.1 * math.log1p(math.exp(odds[j] - odds[i])) for i, j in ((0, 1), (2, 3))]
    close(Orpo()(policy, samples, PART, [0, 1]), np.array(expected))
    part = Groups(np.array([[0, 1], [2, 3]]), np.array([[1.0, 2.0], [3.0, 1.0]]))
    expected = [max(0.0, means[0] - means[1]) - means[1], max(0.0, means[3] - means[2]) - means[2]]
    close(Rrhf()(policy, samples, part, [0, 1]), np.array(expected))


@pytest.mark.parametrize("ratio", ["action", "sequence"])
@pytest.mark.parametrize("kl", ["k1", "k3"])
def test_a_divergence_is_0_at_the_start_and_its_ratios_are_1(load, ratio, kl):
    policy = load("llama")
    samples = policy.sample(requests([Prompt("say one")], 3, 0, 1), trace=True)
    part, objective = (
        Advantages(np.arange(3), np.array([1.0, -1.0, 0.5])),
        PolicyGradient(ratio=ratio, beta=0.5, kl=kl, average="samples"),
    )
    rnd = objective.begin(policy, samples, part, {})
    (whole,) = rnd.passes(policy, samples, part)
    assert whole(policy, samples, part, [0] * 3).tolist() == pytest.approx([-1.0, 1.0, -0.5], abs=1e-3)
    assert rnd.figures() == {
        "policy/replay_error": pytest.approx(0, abs=1e-4),
        "policy/clip_fraction": 0,
        "policy/kl": pytest.approx(0, abs=1e-4),
    }
