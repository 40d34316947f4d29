"""Samples drawn from the policy that is trained: the R of RAFT's loop is on-policy by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raft_core import sampling
from raft_core.protocols import Policy
from raft_core.types import Prompt, Request, Sample


@dataclass(frozen=True)
class FromPolicy:
    """K fresh samples of every prompt, drawn from the policy as it is at the beginning of the round.

    Source: RAFT (2304.06767), algorithm 1.
    """

    def requests(self, prompts: Sequence[Prompt], k: int, seed: int, rnd: int) -> list[Request]:
        """P·K requests, prompt-major."""
        return sampling.requests(prompts, k, seed, rnd)

    def samples(self, policy: Policy, requests: Sequence[Request], *, trace: bool) -> list[Sample]:
        return policy.sample(requests, purpose="round", trace=trace)
