"""Every worked example of CONTRIBUTING.md, as it stands there, run on the fake policy."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from raft_core.config.components import Walk
from raft_core.errors import ConfigError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.protocols import Objective, Policy, Reward, RewardInfo, Selector
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.store.store import Store
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt, Request, Weighted

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
EXAMPLES = dict(re.findall(r"^`(\w+\.py)`\n\n```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))
PROMPTS = [Prompt(text) for text in ("one", "two", "three", "four")]


@pytest.fixture
def example(tmp_path):
    """A class of one of the page's files."""

    def load(file: str, name: str):
        path = tmp_path / file
        path.write_text(EXAMPLES[file], encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    return load


def run(tmp_path, policy, reward, *, selector=None, objective=None, rounds=3, k=8):
    """The metrics of every round."""
    policy.load()
    prompts = PromptSet(PROMPTS, [], len(PROMPTS), seed=0)
    trainer = Trainer(Optimizer(lr=0.3), steps=8)
    with Store.create(tmp_path / "run", {}, seed=0) as store:
        trainer.attach(policy, 0, rounds)
        parts = (Scorer(reward), selector or BestOfK(), objective or Sft())
        align(policy, prompts, *parts, trainer, store, Monitor(stop_when=()), rounds=rounds, k=k)
        return store.history()


def test_the_page_shows_one_file_for_each_kind_of_part():
    assert list(EXAMPLES) == ["warmth.py", "softmax_weights.py", "kl_sft.py", "melodies.py"]


def test_the_reward(example, tmp_path):
    reward_class = example("warmth.py", "Warmth")
    reward = reward_class(strength=2.0)
    assert isinstance(reward, Reward)
    with pytest.raises(ConfigError, match="strength is 0, but must be positive"):
        reward_class(strength=0)
    history = run(tmp_path, FakePolicy("image"), reward)
    assert history[-1]["reward/mean"] > history[0]["reward/mean"] + 10


def test_the_selector(example, tmp_path):
    selector = example("softmax_weights.py", "SoftmaxWeights")(temperature=0.5)
    assert isinstance(selector, Selector)
    nan = np.nan
    chosen = selector(np.array([[0.0, 0.5 * np.log(3), nan], [nan, nan, nan], [1e6, 1e6, 1e6]]))
    assert chosen.index.tolist() == [0, 1, 6, 7, 8]
    np.testing.assert_allclose(chosen.weight, [0.25, 0.75, 1 / 3, 1 / 3, 1 / 3])
    assert len(selector(np.full((2, 3), nan))) == 0
    history = run(tmp_path, FakePolicy(), FakeReward(), selector=selector)
    assert history[-1]["reward/mean"] > history[0]["reward/mean"]
    assert history[0]["select/kept_fraction"] == 1


def test_the_objective(example, tmp_path):
    objective_class = example("kl_sft.py", "AnchoredSft")
    objective = objective_class(beta=0.5)
    assert isinstance(objective, Objective)

    policy = FakePolicy(dim=2)
    [sample] = policy.sample([Request(PROMPTS[0], 0, 1)])
    with torch.no_grad():
        policy.mean += 1
    x = sample.tensors["x"]
    nll, reference = ((x - 1) ** 2).sum() / 2, (x**2).sum() / 2
    loss = objective(policy, [sample], Weighted(np.array([0]), np.array([2.0])), [0])
    assert loss.tolist() == pytest.approx([float(2 * nll + 0.5 * (nll - reference) ** 2)])

    free = run(tmp_path / "free", FakePolicy(), FakeReward(), objective=objective_class(beta=0))
    held = run(tmp_path / "held", FakePolicy(), FakeReward(), objective=objective_class(beta=1.0))
    assert free[-1]["kl"] > held[-1]["kl"] >= 0


class CountOfC:
    info = RewardInfo("c")

    def __call__(self, samples):
        return [sample.output.split().count("C") for sample in samples]


def test_the_modality(example, tmp_path):
    policy = example("melodies.py", "Melodies")(length=6)
    assert isinstance(policy, Policy)
    assert policy.check() == []
    policy.load()
    asked = [Request(prompt, i, seed) for seed, prompt in enumerate(PROMPTS) for i in range(2)]
    together, alone = policy.sample(asked), [policy.sample([request])[0] for request in asked]
    assert [s.tensors["tokens"].tolist() for s in together] == [s.tensors["tokens"].tolist() for s in alone]
    torch.testing.assert_close(policy.nll(together, None), policy.nll(together, None, reference=True))

    history = run(tmp_path, policy, CountOfC(), rounds=4)
    assert history[-1]["reward/mean"] > 2 * history[0]["reward/mean"]
    assert [path.name for path in policy.save(tmp_path / "export")] == ["melodies.json"]


def test_examples_are_named_in_a_configuration_by_their_file(example, tmp_path):
    example("warmth.py", "Warmth")
    walk = Walk()
    part = walk.component({"class_path": f"{tmp_path}/warmth.py:Warmth", "init_args": {"strength": 3}}, "reward", "reward")
    assert part.make().strength == 3
    assert walk.mistakes == []
