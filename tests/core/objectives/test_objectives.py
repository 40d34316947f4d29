"""Objectives against numbers derived by hand."""

import numpy as np
import torch

from raft_core.objectives.sft import Sft
from raft_core.testing import FakePolicy
from raft_core.types import Prompt, Request, Sample, Weighted


def sample(*x: float) -> Sample:
    return Sample(Request(Prompt("p"), 0, 0), tensors={"x": torch.tensor(x)})


def test_sft_is_weight_times_likelihood():
    # FakePolicy's nll at mean 0 is |x|²/2: 2 for (2, 0), 4 for (2, 2). Weights 1 and 1/2: 2 and 2.
    samples = [sample(9.0, 9.0), sample(2.0, 0.0), sample(2.0, 2.0)]
    part = Weighted(index=np.array([1, 2]), weight=np.array([1.0, 0.5]))
    losses = Sft()(FakePolicy(), samples, part, [0, 1])
    assert losses.shape == (2,) and losses.dtype == torch.float32
    assert losses.tolist() == [2.0, 2.0]


def test_sft_gradient():
    # d/dmean of w·|x − mean|²/2 = −w·(x − mean): −0.5 · (2, 4) = (−1, −2) in the prompt's own row, 0 in every other.
    policy = FakePolicy()
    Sft()(policy, [sample(2.0, 4.0)], Weighted(np.array([0]), np.array([0.5])), [0]).sum().backward()
    assert policy.mean.grad is not None
    rows = policy.mean.grad.abs().sum(dim=1).nonzero().flatten()
    assert len(rows) == 1
    assert policy.mean.grad[rows[0]].tolist() == [-1.0, -2.0]


def test_the_seeds_of_the_items_reach_the_draw():
    class Recording(FakePolicy):
        seen: tuple = ()

        def draw(self, samples, seeds):
            self.seen = tuple(seeds)

    policy = Recording()
    Sft()(policy, [sample(1.0, 1.0)], Weighted(np.array([0, 0]), np.ones(2)), [5, 6])
    assert policy.seen == (5, 6)
