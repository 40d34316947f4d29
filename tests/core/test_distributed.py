"""Two processes make the same run as one. They are real ones, over gloo, as ``accelerate launch`` would start them."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raft_core.errors import ConfigError
from raft_core.machine.processes import Processes
from raft_core.objectives.sft import Sft
from raft_core.rng import torch_rng
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.testing import FakePolicy, FakeReward, close, together
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt

ROUNDS, K = 2, 4


class Noisy(FakePolicy):
    """With a draw, so that a wrong seed or a wrong share shows."""

    def draw(self, samples, seeds):
        return torch.stack([torch.randn(self.mean.shape[1], generator=torch_rng(seed)) for seed in seeds])

    def nll(self, samples, draw, *, reference=False):
        error = torch.stack([s.tensors["x"] for s in samples]) + draw - self._means(samples, 0.0 if reference else 1.0)
        return (error**2).sum(dim=1) / 2


class FailsOnce(Sft):
    """Not a number for one item of one step, which only one of two processes sees."""

    def __call__(self, policy, samples, part, seeds):
        losses = super().__call__(policy, samples, part, seeds)
        bad = torch.tensor([seed in FAILING for seed in seeds])
        return torch.where(bad, torch.nan, losses)


FAILING: set[int] = set()


def run(folder: Path, rank: int) -> None:
    """The whole run of one process; leaves its weights, its trainer's state and its metrics."""
    from raft_core.rng import seed_for

    FAILING.add(seed_for(5, "train", 2, 1, 3))
    policy = Noisy()
    policy.mean.data.fill_(0.1 * rank)  # the second process starts from other weights, and must not end with them
    trainer = Trainer(Optimizer(lr=0.1), batch_size=8, steps=5, max_grad_norm=0.5, ema_decay=0.9)
    trainer.attach(policy, seed=5, rounds=ROUNDS)
    metrics = []
    for rnd in range(1, ROUNDS + 1):
        samples = policy.sample(requests([Prompt(f"p{i}") for i in range(6)], K, 5, rnd))
        selection = BestOfK()(FakeReward()(samples).reshape(-1, K))
        metrics.append(trainer.fit(policy, FailsOnce(), samples, selection, rnd))
    tensors, plain = trainer.state_dict()
    save_file({"mean": policy.mean.detach()} | tensors, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps([metrics, plain]))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Folders of the run with two processes and of the run with one."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    run(one, 0)
    assert together(__file__, lambda rank: (two, rank), 2) == [0, 0]
    return two, one


@pytest.mark.slow
def test_both_processes_end_with_the_same_bits(both):
    two, _ = both
    first, second = load_file(two / "0.safetensors"), load_file(two / "1.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (two / "0.json").read_text() == (two / "1.json").read_text()


@pytest.mark.slow
def test_two_processes_are_one(both):
    two, one = both
    shared, alone = load_file(two / "0.safetensors"), load_file(one / "0.safetensors")
    for name, value in alone.items():
        close(shared[name], value, 1e-4)
    (metrics, plain), (metrics_alone, plain_alone) = (json.loads((folder / "0.json").read_text()) for folder in both)
    assert metrics == [pytest.approx(found, rel=1e-4) for found in metrics_alone]
    assert metrics[1]["train/failed_items"] == 1  # left out by one and known to both
    assert plain["step"] == plain_alone["step"] == 10


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch):
    monkeypatch.setattr(Processes, "current", classmethod(lambda _: Processes(0, 3)))
    with pytest.raises(ConfigError, match="batch_size is 8, which 3 processes cannot share"):
        Trainer(batch_size=8).attach(FakePolicy(), 0, 1)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
    Processes.current().wait()  # whoever left first would look like a failure to the other
