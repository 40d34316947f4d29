"""RAFT++ and Reinforce-Rej on a language model: what was drawn keeps its log-probs, through the store and a whole run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raft_core.config.run_config import check
from raft_core.objectives.policy_gradient import PolicyGradient
from raft_core.objectives.raft_plus_plus import RaftPlusPlus
from raft_core.sampling import requests
from raft_core.store.store import read_history, read_round
from raft_core.types import Advantages, Prompt, Weighted
from raft_core.workflows.align import align_run

REWARD = "def early(prompts, outputs):\n    return [float(sum(c < 'n' for c in o) * 2 >= len(o)) for o in outputs]\n"


def test_at_first_every_ratio_is_one_whatever_the_temperature(load):
    policy = load("llama", sampling={"temperature": 0.7, "repetition_penalty": 1.2})
    samples = policy.sample(requests([Prompt("say one"), Prompt("say")], 2, 0, 1), trace=True)
    index = np.arange(4)
    losses = RaftPlusPlus(average="samples")(policy, samples, Weighted(index, np.ones(4)), [0] * 4)
    assert losses.tolist() == pytest.approx([-1.0] * 4, abs=1e-3)
    signed = PolicyGradient(average="samples")(policy, samples, Advantages(index, np.array([1.0, -1.0, 1.0, -1.0])), [0] * 4)
    assert signed.tolist() == pytest.approx([-1.0, 1.0, -1.0, 1.0], abs=1e-3)


@pytest.mark.parametrize("average", ["samples", "actions"])
def test_the_gradient_is_that_of_the_log_likelihood(load, average):
    policy = load("gpt2", lora=None)
    samples = policy.sample(requests([Prompt("say one")], 2, 0, 1), trace=True)
    lengths = torch.tensor([len(sample.tensors["tokens"]) for sample in samples])
    gradients = []
    part = Weighted(np.arange(2), np.ones(2))
    for losses in (
        RaftPlusPlus(average=average)(policy, samples, part, [0, 0]),
        policy.nll(samples, None) / (lengths if average == "samples" else 1),
    ):
        for parameter in policy.trainable().values():
            parameter.grad = None
        losses.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.trainable().values() if p.grad is not None]))
    assert torch.allclose(*gradients, atol=1e-3 * float(gradients[1].abs().max())) and gradients[0].norm() > 0.1
    whole = RaftPlusPlus(average=average).divisor(samples, part)
    assert whole == (2 if average == "samples" else int(lengths.sum()))


@pytest.mark.parametrize(
    ("selector", "objective"),
    [
        (
            {"class_path": "AllBest", "init_args": {"least": 1.0}},
            {"class_path": "RaftPlusPlus", "init_args": {"clip_high": 0.28}},
        ),
        ("ReinforceRej", "PolicyGradient"),
    ],
    ids=["RAFT++", "Reinforce-Rej"],
)
def test_a_run(tiny, tmp_path, selector, objective):
    (tmp_path / "train.txt").write_text("say one\nsay two\nsay three\n")
    (tmp_path / "mine.py").write_text(REWARD)
    arguments = {"model": str(tiny()), "lora": None, "sampling": {"max_new_tokens": 4, "batch_size": 24}}
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": arguments},
        "prompts": {"train": str(tmp_path / "train.txt"), "held_out_fraction": 0.0},
        "reward": str(tmp_path / "mine.py") + ":early",
        "selector": selector,
        "objective": objective,
        "trainer": {"steps": 6, "batch_size": 8, "optimizer": {"lr": 1e-2}},
        "trackers": [],
        "stop_when": [],
        "rounds": 4,
        "k": 8,
        "evaluation": {"k": 1, "prompts": 1},
    }
    run = align_run(check(raw, name="tiny"), folder=tmp_path / "run")
    history = read_history(run)
    assert history[-1]["reward/mean"] > history[0]["reward/mean"] + 0.15
    _, scores, kept = read_round(run, 1)
    grid, chosen = scores.grid(8), kept.reshape(-1, 8)
    if objective == "PolicyGradient":
        mixed = (grid.max(axis=1) == 1) & (grid.min(axis=1) == 0)
        assert (chosen == mixed[:, None]).all()
    else:
        assert (chosen == (grid == 1)).all()
