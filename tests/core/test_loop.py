"""The whole loop on a policy that fits on a page: the reward rises, and every part is used as it says."""

import dataclasses
from typing import Protocol

import numpy as np
import pytest
import torch

from raft_core import capabilities
from raft_core.errors import RewardError
from raft_core.loop import align
from raft_core.metrics.best_of import expected_max_normal
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.rewards.combine import KLPenalised, Weighted
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.above_quantile import AboveQuantile
from raft_core.selectors.best_of_k import BestOfK, BestThenTop, TopFraction
from raft_core.store.store import Store
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt

PROMPTS = [Prompt(f"prompt {i}") for i in range(4)]


class FirstCoordinate(FakeReward):
    """A judge that sees half of what the reward sees."""

    def __init__(self):
        super().__init__()
        self.info = dataclasses.replace(self.info, name="first")

    def __call__(self, samples):
        return np.array([float(sample.tensors["x"][0]) for sample in samples])


def aligned(folder, *, selector=None, scorer=None, rounds=4, k=8, policy=None, trainer=None, stop_when=()):
    policy = policy or FakePolicy()
    scorer = scorer or Scorer(FakeReward(), [FirstCoordinate()])
    scorer.attach(policy)
    trainer = trainer or Trainer(Optimizer(lr=0.1, weight_decay=0.0), steps=10)
    trainer.attach(policy, seed=1, rounds=rounds)
    monitor = Monitor(stop_when=stop_when)
    with Store.create(folder, {"seed": 1}, 1) as store:
        why = align(
            policy,
            PromptSet(PROMPTS, [], per_round=len(PROMPTS), seed=1),
            scorer,
            selector or BestOfK(),
            Sft(),
            trainer,
            store,
            monitor,
            rounds=rounds,
            k=k,
        )
        return policy, store.history(), why


@pytest.mark.parametrize("selector", [BestOfK(), TopFraction(1 / 8), BestThenTop(3)], ids=str)
def test_the_reward_rises_and_the_judge_with_it(tmp_path, selector):
    policy, history, why = aligned(tmp_path / "run", selector=selector)
    assert why == "all 4 rounds are done"
    first, last = history[0], history[-1]
    assert last["reward/mean"] > first["reward/mean"] + 0.5
    assert last["judge/first"] > first["judge/first"]
    assert first["kl"] == 0 and last["kl"] > 0.1
    for row in history:
        assert row["reward/mean"] < row["reward/best"]
        assert row["reward/kept"] == pytest.approx(row["reward/best"], abs=1.5) and row["reward/kept"] > row["reward/mean"]
        assert row["select/kept_fraction"] == row["select/kept"] / 32
        assert row["train/steps"] == 10
    touched = (policy.mean != 0).any(dim=1).sum()
    assert touched <= len(PROMPTS)  # what no prompt uses is left alone


def test_the_first_round_gains_what_best_of_k_promises(tmp_path):
    """The reward is the mean of two normals: σ = 1/√2 within a prompt, so E max of 8 − mean = c₈/√2 = 1.007."""
    _, history, _ = aligned(tmp_path / "run", rounds=1, k=8)
    assert history[0]["reward/best"] - history[0]["reward/mean"] == pytest.approx(expected_max_normal(8) / 2**0.5, abs=0.3)


def test_the_same_seed_is_the_same_run(tmp_path):
    one, first, _ = aligned(tmp_path / "one", rounds=2)
    two, second, _ = aligned(tmp_path / "two", rounds=2)
    assert torch.equal(one.mean, two.mean)

    def timeless(history):
        return [{name: value for name, value in row.items() if not name.startswith(("time/", "memory/"))} for row in history]

    assert timeless(first) == timeless(second)


def test_samples_that_cannot_be_scored_are_counted_and_never_trained_on(tmp_path):
    _, history, _ = aligned(tmp_path / "run", scorer=Scorer(FakeReward(fails_on=3)))
    assert all(row["unscored/mean"] > 0 for row in history)
    assert history[-1]["reward/mean"] > history[0]["reward/mean"] + 0.5


def test_nothing_scored_stops_the_run(tmp_path):
    with pytest.raises(RewardError):
        aligned(tmp_path / "run", scorer=Scorer(FakeReward(fails_on=1)))


def test_parts_of_a_reward_are_scores_and_not_judges(tmp_path):
    scorer = Scorer(Weighted([FakeReward("mean"), FirstCoordinate()], [1, 0.5], name="sum"))
    _, history, _ = aligned(tmp_path / "run", scorer=scorer, rounds=2)
    assert {name for name in history[0] if name.startswith(("score/", "judge"))} == {"score/mean", "score/first"}
    expected = history[0]["score/mean"] + 0.5 * history[0]["score/first"]
    assert history[0]["reward/mean"] == pytest.approx(expected, abs=1e-6)


def test_a_kl_penalty_holds_the_policy_back(tmp_path):
    _, free, _ = aligned(tmp_path / "free", scorer=Scorer(FakeReward()))
    _, held, _ = aligned(tmp_path / "held", scorer=Scorer(KLPenalised(FakeReward(), beta=1.0)))
    assert held[-1]["kl"] < free[-1]["kl"]
    assert held[-1]["score/mean"] < free[-1]["reward/mean"]


def test_a_rule_ends_the_run(tmp_path):
    _, history, why = aligned(tmp_path / "run", stop_when=[lambda history: "enough" if len(history) == 2 else None])
    assert why == "enough" and len(history) == 2


def test_a_selector_may_follow_the_rounds(tmp_path):
    _, history, _ = aligned(tmp_path / "run", selector=AboveQuantile(0.5, 0.99, over=2), rounds=3)
    kept = [row["select/kept"] for row in history]
    assert kept[0] >= 2 * kept[1] and kept[1] == kept[2]  # half of each prompt's, then the best alone


def test_a_policy_needs_nothing_but_its_protocol(tmp_path):
    capability = [each for each in vars(capabilities).values() if getattr(each, "_is_protocol", False) and each is not Protocol]
    lacking = [each for each in capability if not isinstance(FakePolicy(), each)]
    # It loads and checks, as every policy does; of all that is optional it can do nothing.
    assert {each.__name__ for each in capability} - {each.__name__ for each in lacking} == {"Checks", "Loads"}
    _, history, why = aligned(tmp_path / "run")
    assert why == "all 4 rounds are done" and history[-1]["reward/mean"] > history[0]["reward/mean"]
