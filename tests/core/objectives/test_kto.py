"""KTO against numbers derived by hand, of TRL and of Diffusion-KTO, and in the loop."""

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
from raft_core.objectives.kto import Kto, kto_loss, mismatched
from raft_core.prompts import PromptSet
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.labels import MedianLabels, ThresholdLabels
from raft_core.store.store import Store
from raft_core.testing import FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Labels, Prompt, Request, Sample

REFERENCES = Path(__file__).parents[3] / "benchmarks/references"
TRL = json.loads((REFERENCES / "trl.json").read_text())["kto"]
DIFFUSION = json.loads((REFERENCES / "diffusion.json").read_text())["kto"]


def labels(good: list[bool]) -> Labels:
    return Labels(np.arange(len(good)), np.array(good))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_by_hand():
    # β ½, z = 1, ratio 3: x = ±1; weights 2 and 3.
    losses = kto_loss(torch.tensor([3.0, 3.0]), torch.tensor([True, False]), 1.0, 0.5, (2.0, 3.0))
    assert losses.tolist() == pytest.approx([2 * (1 - sigmoid(1)), 3 * (1 - sigmoid(-1))])


@pytest.mark.parametrize("case", TRL["cases"], ids=str)
def test_as_trl_computes_it(case):
    apart = TRL["mismatched"]["policy"], TRL["mismatched"]["reference"]
    policy = Given(TRL["policy"], TRL["reference"], apart[::-1] if case.get("swapped") else apart)
    objective = Kto(case["beta"], case.get("good_weight", 1.0), case.get("bad_weight", 1.0))
    losses = objective(policy, policy.samples, labels(TRL["good"]), range(4))
    assert losses.mean().item() == pytest.approx(case["value"], rel=1e-6)
    (gradient,) = torch.autograd.grad(losses.sum(), [policy.own])
    assert [float(slope) > 0 for slope in gradient] == TRL["good"]  # a step makes a good one's nll smaller


@pytest.mark.parametrize("case", DIFFUSION["cases"], ids=str)
def test_as_diffusion_kto_computes_it(case):
    class Errors(Given):
        nll_unit = "error"

    names = ("reference", "policy") if case["swapped"] else ("policy", "reference")
    policy = Errors(*([[-error] for error in DIFFUSION[name]] for name in names))
    objective = Kto(None if case["beta"] == 1000 else case["beta"], *case["weights"])  # 1000 is the usual one
    losses = objective(policy, policy.samples, labels(DIFFUSION["good"]), range(4))
    assert losses.mean().item() == pytest.approx(case["value"], rel=1e-6)


def test_a_mismatched_sample_answers_another_prompt():
    chosen = [Sample(Request(Prompt(text), i, i), tensors={"row": torch.tensor(i)}) for i, text in enumerate("aabc")]
    found = mismatched(chosen)
    assert [sample.prompt.text for sample in found] == list("aabc")
    assert [int(sample.tensors["row"]) for sample in found] == [2, 2, 3, 0]
    alone = mismatched(chosen[:2])  # one prompt alone: there is no other
    assert [int(sample.tensors["row"]) for sample in alone] == [1, 0]


def test_a_batch_of_one_is_refused_before_weights_load():
    (mistake,) = disagreements({"objective": Kto(), "trainer": Trainer(batch_size=1)})
    assert "trainer.batch_size is 1" in mistake and "at least 2" in mistake
    assert disagreements({"objective": Kto(), "trainer": Trainer(batch_size=2)}) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"beta": -1.0}, "beta is -1"), ({"bad_weight": -0.5}, "bad_weight is -0.5"), ({"point": "none"}, "point is 'none'")],
)
def test_settings_that_make_no_sense(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Kto(**arguments)


def run(folder, objective, selector, *, rounds=5, **trainer):
    policy, prompts = Nats(), [Prompt(f"prompt {i}") for i in range(4)]
    made = Trainer(Optimizer(lr=0.05, weight_decay=0.0), **({"steps": 10, "batch_size": 8} | trainer))
    made.attach(policy, seed=1, rounds=rounds)
    with Store.create(folder, {"seed": 1}, 1) as store:
        parts = (PromptSet(prompts, [], per_round=4, seed=1), Scorer(FakeReward()), selector, objective, made, store, Monitor())
        align(policy, *parts, rounds=rounds, k=8)
        return policy, store.history()


@pytest.mark.parametrize("point", ["mismatched", "batch"])
@pytest.mark.parametrize("selector", [ThresholdLabels(0.0), MedianLabels()], ids=["threshold", "median"])
def test_the_reward_rises_and_the_figures_say_so(tmp_path, selector, point):
    _, history = run(tmp_path / "run", Kto(beta=0.5, point=point), selector)
    assert history[-1]["reward/mean"] > history[0]["reward/mean"] + 0.3
    assert all(row["kto/margin"] > 0 and row["kto/accuracy"] > 0.5 and row["kto/point"] >= 0 for row in history)


def test_the_reference_point_is_that_of_the_whole_batch_however_it_is_cut(tmp_path):
    objective = Kto(beta=0.5, point="batch")
    whole, _ = run(tmp_path / "a", objective, MedianLabels(), rounds=2, batch_size=8)
    cut, _ = run(tmp_path / "b", objective, MedianLabels(), rounds=2, batch_size=8, micro_batch_size=1)
    assert torch.allclose(whole.mean, cut.mean, rtol=1e-3, atol=1e-5) and whole.mean.abs().sum() > 0
