"""Reward conditioning: which bin a score is in, what a prompt is told, and that what is asked without a tag gets better."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_core.errors import ConfigError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.reward_conditioned import RewardConditioned, bins_of, tagged
from raft_core.prompts import PromptSet
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.every_score import EveryScore
from raft_core.store.store import Store
from raft_core.testing import FakePolicy, FakeReward, close
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import MESSAGES, Prompt, Request, Sample, Scored


def test_bins_hold_equally_many_and_equal_scores_together():
    assert bins_of(np.array([5.0, 1, 3, 2, 4]), 5).tolist() == [4, 0, 2, 1, 3]
    assert bins_of(np.array([0.0, 0, 1, 1, 1]), 5).tolist() == [1, 1, 4, 4, 4]
    assert bins_of(np.array([7.0, 7]), 3).tolist() == [2, 2] and bins_of(np.array([]), 3).tolist() == []


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30), st.integers(2, 6))
def test_whatever_the_scores_the_best_are_in_the_best_bin_and_bins_rise_with_them(values, bins):
    scores = np.array(values)
    found = bins_of(scores, bins)
    assert (found >= 0).all() and (found < bins).all() and (found[scores == scores.max()] == bins - 1).all()
    assert (np.diff(found[np.argsort(scores, kind="stable")]) >= 0).all()
    assert all(len(set(found[scores == value])) == 1 for value in set(values))


def test_a_tag_stands_before_the_prompt_and_the_best_have_none():
    objective = RewardConditioned(bins=3)
    assert objective.names == ("[quality 1 of 3] ", "[quality 2 of 3] ", "")
    assert RewardConditioned(bins=2, tags=("bad:",)).names == ("bad: ", "")
    sample = Sample(Request(Prompt("a heart", {"a": 1}), 2, 7), output="x")
    told = tagged(sample, "bad: ")
    assert told.prompt == Prompt("bad: a heart", {"a": 1}) and told.seed == 7 and told.output == "x"
    assert tagged(sample, "") is sample
    turns = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "one"), ("assistant", "two"), ("user", "three"))]
    chat = tagged(Sample(Request(Prompt("…", {MESSAGES: turns}), 0, 0)), "bad: ")
    assert [turn["content"] for turn in chat.prompt.messages] == ["s", "one", "two", "bad: three"]
    assert "bad: three" in chat.prompt.text and turns[3]["content"] == "three"


def test_the_loss_is_the_likelihood_behind_the_tag():
    policy = FakePolicy(buckets=64)
    with torch.no_grad():
        policy.mean.normal_(generator=torch.Generator().manual_seed(0))
    samples = policy.sample([Request(Prompt("p"), i, i) for i in range(4)])
    scored = Scored(np.array([3, 0, 2]), np.array([1.0, 0.0, 0.5]))
    loss = RewardConditioned(bins=3).begin(policy, samples, scored, {})
    found = loss(policy, samples, scored, [0, 1, 2])
    texts = ["p", "[quality 1 of 3] p", "[quality 2 of 3] p"]
    by_hand = [
        policy.nll([Sample(Request(Prompt(t), 0, 0), tensors=samples[i].tensors)], None)
        for t, i in zip(texts, (3, 0, 2), strict=True)
    ]
    close(found, torch.cat(by_hand), 1e-6)
    assert loss.figures() == {"conditioned/best_fraction": pytest.approx(1 / 3)}


def test_what_is_asked_without_a_tag_gets_better(tmp_path):
    policy = FakePolicy(buckets=997)
    trainer = Trainer(Optimizer(lr=0.1, weight_decay=0.0), steps=20, batch_size=16)
    trainer.attach(policy, seed=1, rounds=4)
    with Store.create(tmp_path / "run", {"seed": 1}, 1) as store:
        parts = (Scorer(FakeReward()), EveryScore(), RewardConditioned(bins=4), trainer, store, Monitor())
        align(policy, PromptSet([Prompt("a"), Prompt("b")], [], 2, 1), *parts, rounds=4, k=16)
        history = store.history()
    assert history[-1]["reward/mean"] > history[0]["reward/mean"] + 1
    assert history[0]["conditioned/best_fraction"] == 0.25
    low = policy.sample([Request(Prompt("[quality 1 of 4] a"), i, i) for i in range(64)])
    high = policy.sample([Request(Prompt("a"), i, i) for i in range(64)])
    mean = FakeReward()
    assert mean(high).mean() > mean(low).mean() + 1  # and the tag of the worst is understood


@pytest.mark.parametrize(
    "arguments", [{"bins": 1}, {"bins": 3, "tags": ("a",)}, {"bins": 3, "tags": ("a", "a")}, {"bins": 2, "tags": (" ",)}]
)
def test_settings_that_make_no_sense_are_told(arguments):
    with pytest.raises(ConfigError):
        RewardConditioned(**arguments)
