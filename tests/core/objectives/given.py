"""A policy whose likelihoods are given, so that a loss can be held against numbers from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from raft_core.capabilities import NllUnit
from raft_core.testing import FakePolicy
from raft_core.types import Prompt, Request, Sample

Rows = Sequence[Sequence[float]]


class Nats(FakePolicy):
    """One that says the unit of its likelihood."""

    nll_unit: NllUnit | None = "nats"

    def nll_terms(self, samples):
        return [1] * len(samples)


class Given(Nats):
    """Its nll of sample i, whose prompt is the text of i, is row i summed, negative; so is the reference's.

    Args:
        own: log-probs of each sample's tokens, nats.
        reference: the same under the reference.
        apart: both, of what another sample has under the prompt of i.
    """

    def __init__(self, own: Rows, reference: Rows, apart: tuple[Rows, Rows] | None = None):
        super().__init__()
        self.lengths = [len(row) for row in own]
        self.own, self.start = (torch.tensor([-sum(row) for row in rows], dtype=torch.float64) for rows in (own, reference))
        self.own.requires_grad_()
        self.apart = [torch.tensor([-sum(row) for row in rows], dtype=torch.float64) for rows in apart or ()]

    @property
    def samples(self) -> list[Sample]:
        return [Sample(Request(Prompt(str(i)), 0, i), tensors={"row": torch.tensor(i)}) for i in range(len(self.lengths))]

    def nll(self, samples, draw, *, reference=False):
        found = []
        for sample in samples:
            prompt, row = int(sample.prompt.text), int(sample.tensors["row"])
            table = (self.start if reference else self.own) if prompt == row else self.apart[reference]
            found.append(table[prompt])
        return torch.stack(found)

    def nll_terms(self, samples):
        return [self.lengths[int(sample.tensors["row"])] for sample in samples]
