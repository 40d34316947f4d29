"""A brake on divergence that a judge drives: when it is put on, when it is let go, and what it goes by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raft_core.errors import ConfigError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.protocols import RewardInfo
from raft_core.rewards.combine import Braked
from raft_core.rewards.combine.brake import steps
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.store.store import Store, read_round
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt

NAN = math.nan


def test_the_brake_is_put_on_round_by_round_and_let_go_again():
    assert [steps([5, 3, 3, 5, 5][:n], 1, 8) for n in range(1, 6)] == [0, 1, 2, 1, 0]
    assert steps([5, 4, 4, 4], 1, 8) == 0  # it may fall by so much
    assert steps([5] + [0] * 9, 1, 3) == 3
    assert steps([5, 0, NAN, 0], 1, 8) == 2 and steps([NAN, 0, 0], 1, 8) == 0 and steps([], 1, 8) == 0


def test_beta_follows_from_the_judge_in_the_rounds_before():
    reward = Braked(FakeReward(), "judge", by=0.5, beta=0.1, factor=3)
    rounds = [{"judge": np.array(values)} for values in ([1.0, 3.0], [1.0, NAN], [0.0, 1.0], [2.0, 2.0])]
    betas = []
    for count in range(5):
        reward.recall(rounds[:count])
        betas.append(reward.beta)
    assert betas == pytest.approx([0.1, 0.1, 0.3, 0.9, 0.3])
    lower = Braked(FakeReward(), "judge", by=0.5, beta=0.1, higher_is_better=False)
    lower.recall(rounds[:3])
    assert lower.beta == 0.1


class Falling(FakeReward):
    """A judge that gets worse by every bit that the reward gets better."""

    def __init__(self):
        self.info = RewardInfo("falling")

    def __call__(self, samples):
        return -np.array([float(sample.tensors["x"].mean()) for sample in samples])


def run(folder, scorer, rounds=6):
    policy = FakePolicy()
    scorer.attach(policy)
    trainer = Trainer(Optimizer(lr=0.2, weight_decay=0.0), steps=10)
    trainer.attach(policy, seed=1, rounds=rounds)
    with Store.create(folder, {"seed": 1}, 1) as store:
        parts = (scorer, BestOfK(), Sft(), trainer, store, Monitor())
        align(policy, PromptSet([Prompt("a"), Prompt("b")], [], 2, 1), *parts, rounds=rounds, k=8)
        return store.history()


def test_a_run_that_games_its_reward_is_held_back(tmp_path):
    free = run(tmp_path / "free", Scorer(FakeReward(), [Falling()]))
    held = run(tmp_path / "held", Scorer(Braked(FakeReward(), "falling", by=0.5, beta=0.05, factor=4), [Falling()]))
    assert held[1]["kl"] == pytest.approx(free[1]["kl"], rel=0.5)  # nothing has fallen yet
    assert held[-1]["kl"] < free[-1]["kl"] / 2 and held[-1]["judge/falling"] > free[-1]["judge/falling"] + 0.5
    _, scores, _ = read_round(tmp_path / "held", 6)
    assert {"mean", "mean_braked", "falling"} == set(scores.columns)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"beta": 0.0}, "beta is 0.0, but must be positive"),
        ({"by": -1.0}, "by is -1.0"),
        ({"factor": 1.0}, "factor is 1.0, but must be above 1"),
        ({"most": 0}, "most is 0"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings, told):
    with pytest.raises(ConfigError, match=told):
        Braked(FakeReward(), **{"judge": "judge", "by": 1.0, **settings})


def test_a_judge_that_there_is_not_is_told_before_anything_is_loaded():
    (told,) = Scorer(Braked(FakeReward(), "fallen", by=1), [Falling()]).check()
    assert "no judge of that name (did you mean 'falling'?)" in told
    (told,) = Scorer(Braked(FakeReward(), "falling", by=1, higher_is_better=False), [Falling()]).check()
    assert "the wrong way round: it is better higher" in told
    assert Scorer(Braked(FakeReward(), "falling", by=1), [Falling()]).check() == []
