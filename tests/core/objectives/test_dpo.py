"""DPO and its kin against numbers derived by hand and numbers of TRL, and in the loop."""

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
from raft_core.objectives.dpo import Dpo, pair_loss
from raft_core.prompts import PromptSet
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.selectors.group_advantages import GroupAdvantages
from raft_core.selectors.labels import MedianLabels
from raft_core.selectors.pairs import AllPairs, BestVsWorst, RandomPairs
from raft_core.selectors.whole_groups import WholeGroups
from raft_core.sources.from_policy import FromPolicy
from raft_core.store.store import Store
from raft_core.testing import FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.reference import Reference
from raft_core.training.trainer import START, Trainer
from raft_core.types import Pairs, Prompt, Request

REFERENCES = Path(__file__).parents[3] / "benchmarks/references"
RECORD = json.loads((REFERENCES / "trl.json").read_text())["dpo"]
DIFFUSION = json.loads((REFERENCES / "diffusion.json").read_text())["dpo"]


def pairs(chosen: list[int], rejected: list[int]) -> Pairs:
    return Pairs(np.array(chosen), np.array(rejected), np.ones(len(chosen)))


@pytest.mark.parametrize(
    ("objective", "expected", "slope"),
    [
        # Δ = [−2 − (−3)] − [−4 − (−3)] = 2, β ½, x = 1. The slope is dloss/dΔ, by hand: −β·σ(−x) and so on.
        (Dpo(beta=0.5), math.log(1 + math.exp(-1)), -0.5 / (1 + math.e)),
        (Dpo(beta=0.5, label_smoothing=0.1), math.log(1 + math.exp(-1)) + 0.1, 0.05 - 0.5 / (1 + math.e)),
        (Dpo("robust", 0.5, 0.25), math.log(1 + math.exp(-1)) * 2 - 0.5 * (1 + 2 * math.log(1 + math.exp(-1))), None),
        (Dpo("hinge", 0.25), 0.5, -0.25),
        (Dpo("hinge", 0.5), 0.0, 0.0),
        (Dpo("ipo", 0.5), 1.0, 2.0),
        (Dpo("ipo", 0.25), 0.0, 0.0),
    ],
    ids=str,
)
def test_by_hand(objective, expected, slope):
    policy = Given([[-2.0], [-4.0]], [[-3.0], [-3.0]])
    losses = objective(policy, policy.samples, pairs([0], [1]), [7])
    if objective.loss == "robust":  # −¾·log σ(x) + ¼·log σ(−x) over ½, with log σ(−1) = log σ(1) − 1
        expected = (0.75 * math.log(1 + math.exp(-1)) - 0.25 * (1 + math.log(1 + math.exp(-1)))) / 0.5
    assert losses.tolist() == pytest.approx([expected], abs=1e-12)
    losses.sum().backward()
    if slope is not None:  # nll falls as the log-ratio rises
        assert policy.own.grad is not None
        assert policy.own.grad.tolist() == pytest.approx([-slope, slope], abs=1e-12)


@pytest.mark.parametrize("case", RECORD["cases"], ids=lambda case: case["loss"])
def test_as_trl_computes_it(case):
    policy = Given(RECORD["policy"], RECORD["reference"])
    normalised = case["loss"] in ("ipo", "sigmoid_norm")
    loss = "sigmoid" if case["loss"] == "sigmoid_norm" else case["loss"]
    objective = Dpo(loss, case["beta"], case.get("label_smoothing", 0.0), per_token=normalised)
    losses = objective(policy, policy.samples, pairs([0, 1], [2, 3]), [0, 1])
    assert losses.mean().item() == pytest.approx(case["value"], rel=1e-6)


@pytest.mark.parametrize("case", DIFFUSION["cases"], ids=str)
def test_as_diffusion_dpo_computes_it(case):
    class Errors(Given):
        nll_unit = "error"

    policy = Errors(*([[-error] for error in DIFFUSION[name]] for name in ("policy", "reference")))
    objective = Dpo(case["loss"], None if case["beta"] == 2500 else case["beta"])  # 2500 is the usual one
    losses = objective(policy, policy.samples, pairs([0, 1], [2, 3]), [0, 1])
    assert losses.mean().item() == pytest.approx(case["value"], rel=1e-6)


def test_chosen_and_rejected_share_the_draw_of_their_pair():
    class Drawing(Given):
        def draw(self, samples, seeds):
            return list(seeds)

        def nll(self, samples, draw, *, reference=False):
            self.seen = (*getattr(self, "seen", ()), (reference, tuple(draw)))
            return super().nll(samples, draw, reference=reference)

    policy = Drawing([[-1.0]] * 4, [[-1.0]] * 4)
    Dpo()(policy, policy.samples, pairs([0, 1], [2, 3]), [5, 6])
    assert policy.seen == ((False, (5, 6, 5, 6)), (True, (5, 6, 5, 6)))


def test_the_reference_has_no_gradient_and_at_the_start_every_loss_is_log_2():
    policy = Nats()
    samples = policy.sample([Request(Prompt("p"), j, j) for j in range(4)])
    losses = Dpo(beta=3.0)(policy, samples, pairs([0, 1], [2, 3]), [0, 1])
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)
    (gradient,) = torch.autograd.grad(losses.sum(), [policy.mean])
    # d/dmean of −β/2·[(x_w − mean)²/−2 …] = −β/2·(x_w − x_l), summed over the pairs.
    x = torch.stack([sample.tensors["x"] for sample in samples])
    assert torch.allclose(gradient.sum(dim=0), -1.5 * (x[:2] - x[2:]).sum(dim=0))


def test_the_usual_beta_is_that_of_the_unit():
    class Errors(Given):
        nll_unit = "error"

    class Silent(Given):
        nll_unit = None

    for kind, beta in ((Given, 0.1), (Errors, 2500.0)):
        policy = kind([[-2.0], [-2.0005]], [[-2.0], [-2.0]])
        losses = Dpo()(policy, policy.samples, pairs([0], [1]), [0])
        assert losses.item() == pytest.approx(pair_loss(torch.tensor(0.0005), beta, "sigmoid").item(), rel=1e-5)
    assert Dpo().suits(Given([], [])) == [] and Dpo(per_token=True).suits(Given([], [])) == []
    (mistake,) = Dpo(per_token=True).suits(Errors([], []))
    assert "objective.per_token needs" in mistake and "mean squared error of denoising" in mistake
    (mistake,) = Dpo().suits(Silent([], []))
    assert "does not say the unit" in mistake and "objective.beta" in mistake
    assert Dpo(beta=1.0).suits(Silent([], [])) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "dpo"}, "loss is 'dpo'"),
        ({"beta": 0.0}, "beta is 0"),
        ({"label_smoothing": 0.5}, r"label_smoothing is 0.5, but must be in \[0, 0.5\)"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "does not know"),
    ],
)
def test_settings_that_make_no_sense(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Dpo(**arguments)


def test_pairs_do_not_go_with_likelihood_nor_winners_with_dpo():
    (mistake,) = disagreements({"selector": BestOfK(), "objective": Dpo()})
    assert "produces weighted samples" in mistake and "made for pairs" in mistake
    assert "use the selector AllPairs, BestVsWorst, RandomPairs; or the objective " in mistake and "Sft" in mistake


@pytest.mark.parametrize("selector", [BestVsWorst(), AllPairs(), GroupAdvantages(), MedianLabels(), WholeGroups()], ids=str)
def test_what_compares_the_samples_of_a_prompt_needs_two(selector):
    (mistake,) = disagreements({"selector": selector, "samples": FromPolicy(), "k": 1})
    assert "k is 1" in mistake and type(selector).__name__ in mistake and "at least 2" in mistake
    assert disagreements({"selector": selector, "samples": FromPolicy(), "k": 2}) == []
    assert disagreements({"selector": selector, "k": 1}) == []  # a table brings groups of its own


# ---------------------------------------------------------------------- the loop


def run(folder, objective, selector, *, rounds=5, reference=START, **trainer):
    policy, prompts = Nats(), [Prompt(f"prompt {i}") for i in range(4)]
    made = Trainer(Optimizer(lr=0.05, weight_decay=0.0), steps=10, reference=reference, **trainer)
    made.attach(policy, seed=1, rounds=rounds)
    with Store.create(folder, {"seed": 1}, 1) as store:
        parts = (PromptSet(prompts, [], per_round=4, seed=1), Scorer(FakeReward()), selector, objective, made, store, Monitor())
        align(policy, *parts, rounds=rounds, k=8)
        return policy, store.history()


@pytest.mark.parametrize(
    ("objective", "selector", "reference"),
    [
        (Dpo(), BestVsWorst(), Reference()),
        (Dpo("hinge", 0.2), AllPairs(gap=0.5, most=4), Reference()),
        (Dpo("ipo", 0.1), RandomPairs(n=2), Reference()),
        (Dpo("ipo", 0.2), BestVsWorst(), Reference(every=1)),
        (Dpo(beta=0.5), BestVsWorst(), Reference(every=1, mix=0.5)),
    ],
    ids=["DPO", "RS-DPO, hinge", "IPO, random", "online IPO", "DPO, moving average"],
)
def test_the_reward_rises_and_the_figures_say_so(tmp_path, objective, selector, reference):
    _, history = run(tmp_path / "run", objective, selector, reference=reference)
    assert history[-1]["reward/mean"] > history[0]["reward/mean"] + 0.3
    for row in history:
        assert 0.5 < row["dpo/accuracy"] <= 1 and row["dpo/margin"] > 0
        assert row["dpo/margin"] == pytest.approx(row["dpo/chosen"] - row["dpo/rejected"], rel=1e-4)


def test_a_batch_is_the_same_however_it_is_cut(tmp_path):
    whole, _ = run(tmp_path / "a", Dpo(), BestVsWorst(), rounds=1, batch_size=4)
    cut, _ = run(tmp_path / "b", Dpo(), BestVsWorst(), rounds=1, batch_size=4, micro_batch_size=1)
    assert torch.allclose(whole.mean, cut.mean, rtol=1e-4, atol=1e-6) and whole.mean.abs().sum() > 0
