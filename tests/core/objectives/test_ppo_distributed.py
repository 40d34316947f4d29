"""PPO on two real processes is PPO on one: same advantages, same steps, same figures, same price."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raft_core.machine.processes import Processes
from raft_core.objectives.kl_control import KlPenalty
from raft_core.objectives.ppo import Ppo
from raft_core.sampling import requests
from raft_core.selectors.every_score import EveryScore
from raft_core.testing import FakePolicy, FakeReward, close, together
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt


class Valued(FakePolicy):
    """With a critic of one estimate for all."""

    estimates_values = True

    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(1))

    def trainable(self):
        return {"mean": self.mean, "value": self.value}

    def step_log_probs_and_values(self, samples):
        log_probs, mask = self.step_log_probs(samples)
        return log_probs, self.value.expand_as(log_probs), mask


def run(folder: Path, rank: int) -> None:
    """Two rounds of one process; leaves its weights and its figures."""
    policy = Valued()
    trainer = Trainer(Optimizer(lr=0.1), batch_size=8, epochs=2)
    trainer.attach(policy, seed=5, rounds=2)
    figures = []
    for rnd in (1, 2):
        samples = policy.sample(requests([Prompt(f"p{i}") for i in range(4)], 4, 5, rnd), trace=True)
        selection = EveryScore()(FakeReward()(samples).reshape(-1, 4))
        figures.append(trainer.fit(policy, Ppo(kl=KlPenalty(0.1, target=0.1, horizon=50)), samples, selection, rnd))
    save_file({name: value.detach() for name, value in policy.trainable().items()}, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps([figures, trainer.state_dict()[1]["carried"]]))


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir()
    one.mkdir()
    run(one, 0)
    assert together(__file__, lambda rank: (two, rank), 2) == [0, 0]
    assert (two / "0.json").read_text() == (two / "1.json").read_text()
    assert (two / "0.safetensors").read_bytes() == (two / "1.safetensors").read_bytes()
    shared, alone = load_file(two / "0.safetensors"), load_file(one / "0.safetensors")
    for name, value in alone.items():
        close(shared[name], value, 1e-4)
    (figures, carried), (figures_alone, carried_alone) = (json.loads((at / "0.json").read_text()) for at in (two, one))
    assert carried == pytest.approx(carried_alone, rel=1e-4)
    assert figures == [pytest.approx(each, rel=1e-3, abs=1e-5) for each in figures_alone]


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
    Processes.current().wait()  # whoever left first would look like a failure to the other
