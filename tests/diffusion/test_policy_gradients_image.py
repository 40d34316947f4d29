"""RAFT++ and the policy gradient on denoising steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raft_core.config.run_config import check
from raft_core.errors import ConfigError
from raft_core.objectives.policy_gradient import PolicyGradient
from raft_core.objectives.raft_plus_plus import RaftPlusPlus
from raft_core.sampling import requests
from raft_core.types import Advantages, Prompt, Weighted


def test_ratios_are_one_at_first_and_steps_move_them_as_the_advantages_say(load):
    policy = load(sampling={"eta": 1.0, "guidance_scale": 1.0})
    samples = policy.sample(requests([Prompt("a red star")], 2, 0, 1), trace=True)
    losses = RaftPlusPlus(average="samples")(policy, samples, Weighted(np.arange(2), np.ones(2)), [0, 0])
    assert losses.tolist() == pytest.approx([-1.0, -1.0], abs=0.06)  # sums over 1,024 elements
    part = Advantages(np.arange(2), np.array([1.0, -1.0]))
    optimizer = torch.optim.Adam(policy.trainable().values(), lr=1e-3)
    with torch.no_grad():
        before = policy.step_log_probs(samples)[0].sum(dim=1)
    for _ in range(5):
        optimizer.zero_grad()
        PolicyGradient()(policy, samples, part, [0, 0]).sum().backward()
        optimizer.step()
    with torch.no_grad():
        moved = policy.step_log_probs(samples)[0].sum(dim=1) - before
    assert moved[0] - moved[1] > 0.05


def test_a_sampler_without_noise_is_refused_before_a_weight_is_loaded(tmp_path):
    (tmp_path / "train.txt").write_text("a red star\na blue star\na green star\n")
    arguments = {"model": "bundled:shapes", "sampling": {"scheduler": "dpm++"}}
    raw = {
        "policy": {"class_path": "StableDiffusion", "init_args": arguments},
        "prompts": {"train": str(tmp_path / "train.txt")},
        "reward": "Sharpness",
        "selector": "ReinforceRej",
        "objective": "PolicyGradient",
    }
    with pytest.raises(ConfigError, match=r"need noise in every step, but sampling.scheduler is 'dpm\+\+'"):
        check(raw)
    arguments["sampling"] = {"scheduler": "ddim", "eta": 1.0}
    check(raw)
