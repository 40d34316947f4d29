"""ORPO, RRHF and best-of-n distillation against numbers derived by hand and recorded ones, and in the loop."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from given import Given, Nats

from raft_core.config.run_config import disagreements
from raft_core.errors import ConfigError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.orpo import Orpo, log_odds
from raft_core.objectives.ranking import BonBon, Rrhf, best_of_n_margin, ranking_loss
from raft_core.prompts import PromptSet
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.pairs import BestVsWorst
from raft_core.selectors.whole_groups import WholeGroups
from raft_core.store.store import Store
from raft_core.testing import FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.reference import Reference
from raft_core.training.trainer import START, Trainer
from raft_core.types import Groups, Pairs, Prompt

NAN = math.nan
RECORD = json.loads((Path(__file__).parents[3] / "benchmarks/references/trl.json").read_text())["orpo"]


class Errors(Given):
    nll_unit = "error"


def test_orpo_by_hand():
    # Token means log ½ and log ¼: odds 1 and 1/3, so the log odds ratio is log 3 and −log σ(log 3) = log(4/3).
    policy = Given([[math.log(0.5)] * 3, [math.log(0.25)] * 2], [[0.0], [0.0]])
    losses = Orpo(beta=0.5)(policy, policy.samples, Pairs(np.array([0]), np.array([1]), np.ones(1)), [0])
    assert losses.item() == pytest.approx(math.log(2) + 0.5 * math.log(4 / 3))
    assert log_odds(torch.tensor([0.0], requires_grad=True)).isfinite().all()


def test_the_odds_ratio_as_trl_computes_it():
    policy = Given(RECORD["policy"], RECORD["policy"])
    part = Pairs(np.array([0, 1]), np.array([2, 3]), np.ones(2))
    whole = Orpo(beta=RECORD["beta"])(policy, policy.samples, part, [0, 1])
    likelihood = Orpo(beta=0.0)(policy, policy.samples, part, [0, 1])
    assert (whole - likelihood).mean().item() == pytest.approx(RECORD["value"], rel=1e-6)  # TRL computes it in float32


def groups(reward: list[list[float]]) -> Groups:
    table = np.array(reward)
    return Groups(np.arange(table.size).reshape(table.shape), table)


def test_rrhf_by_hand():
    # p = (−1, −2, −½) per token, r = (3, 1, 1): ½ for the third, which is likelier than the first and worse; NLL(best) = 1. The
    # sample that is not scored counts for nothing.
    policy = Given([[-2.0, 0.0], [-2.0], [-0.5], [-9.0]], [[0.0]] * 4)
    assert Rrhf()(policy, policy.samples, groups([[3.0, 1.0, 1.0, NAN]]), [0]).tolist() == [1.5]
    assert Rrhf(nll_weight=0.5)(policy, policy.samples, groups([[NAN, 1.0, 2.0, NAN]]), [0]).tolist() == [0.25]
    # p_2 = −½ is better and likelier: nothing but its likelihood. Exchanged, the rank costs 1.5 and the best's likelihood 1.
    assert Rrhf(nll_weight=0.0)(policy, policy.samples, groups([[NAN, 2.0, 1.0, NAN]]), [0]).tolist() == [1.5]
    assert ranking_loss(torch.tensor([-1.0, -1.0]), np.array([1.0, 1.0])) == 0


@pytest.mark.parametrize(("n", "margin"), [(1, 0.0), (2, 1.0), (4, 5.5), (8, 7 * (363 / 140))])
def test_the_margin_of_best_of_n(n, margin):
    assert best_of_n_margin(n) == pytest.approx(margin)


def test_the_margin_is_the_log_ratio_of_best_of_n_itself():
    """Drawn: of uniform quantiles u, best-of-n has the log-density log n + (n − 1)·log u relative to the start."""
    u = np.random.default_rng(0).random((200_000, 4))
    drawn = 3 * (np.log(u.max(axis=1)) - np.log(u.min(axis=1)))
    assert drawn.mean() == pytest.approx(best_of_n_margin(4), abs=5 * drawn.std() / len(drawn) ** 0.5)


def test_best_of_n_distillation_by_hand():
    # Ratios (2, 0, −1, …); three scored, so the margin is 2·1.5 = 3 = 2 − (−1): only the likelihood of the best is left.
    policy = Given([[-1.0], [-2.0], [-4.0], [-1.0]], [[-3.0], [-2.0], [-3.0], [-1.0]])
    part = groups([[5.0, 4.0, 1.0, NAN]])
    assert BonBon(nll_weight=0.25)(policy, policy.samples, part, [0]).tolist() == pytest.approx([0.25 * 1.0])
    assert BonBon(nll_weight=0.0)(policy, policy.samples, groups([[5.0, NAN, 1.0, NAN]]), [0]).tolist() == pytest.approx([4.0])


@pytest.mark.parametrize(
    ("objective", "instead"), [(Orpo(), "Dpo"), (Rrhf(), "AllPairs"), (BonBon(), "BestVsWorst")], ids=["ORPO", "RRHF", "BoNBoN"]
)
def test_denoising_errors_are_refused_with_what_works_instead(objective, instead):
    (mistake,) = disagreements({"objective": objective, "policy": Errors([], [])})
    assert "mean squared error of denoising" in mistake and instead in mistake
    assert disagreements({"objective": objective, "policy": Given([], [])}) == []


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Orpo(beta=-1.0), "beta is -1"),
        (lambda: Rrhf(nll_weight=NAN), "nll_weight is nan"),
        (lambda: BonBon(nll_weight=2.0), "nll_weight is 2"),
    ],
)
def test_settings_that_make_no_sense(made, message):
    with pytest.raises(ConfigError, match=message):
        made()


@pytest.mark.parametrize(
    ("objective", "selector", "reference"),
    [
        (Orpo(beta=1.0), BestVsWorst(), START),
        (Rrhf(), WholeGroups(), START),
        (BonBon(), WholeGroups(), Reference(every=1)),
    ],
    ids=["ORPO", "RRHF", "BoNBoN"],
)
def test_the_reward_rises(tmp_path, objective, selector, reference):
    policy, prompts = Nats(), [Prompt(f"prompt {i}") for i in range(4)]
    trainer = Trainer(Optimizer(lr=0.05, weight_decay=0.0), steps=10, batch_size=4, reference=reference)
    trainer.attach(policy, seed=1, rounds=5)
    with Store.create(tmp_path / "run", {"seed": 1}, 1) as store:
        parts = (
            PromptSet(prompts, [], per_round=4, seed=1),
            Scorer(FakeReward()),
            selector,
            objective,
            trainer,
            store,
            Monitor(),
        )
        align(policy, *parts, rounds=5, k=8)
        history = store.history()
    assert history[-1]["reward/mean"] > history[0]["reward/mean"] + 0.3
    assert all(row["train/skipped_steps"] == 0 for row in history)
