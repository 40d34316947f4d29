"""Self-training beside the written: half of the loss on what the model got right, half on what a person wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from raft_core.capabilities import Writes
from raft_core.conversations import ANSWERS, response
from raft_core.errors import ConfigError, DataError
from raft_core.protocols import Policy
from raft_core.sources.from_table import lacking_responses
from raft_core.types import Prompt, Request, Sample, Selection, Weighted


@dataclass(frozen=True)
class SftWithGold:
    """(1 − gold) × weight × NLL of a sample that was kept + gold × NLL of the written response to a prompt of the round.

    Each item draws its own prompt for the second term from *all* of the round's by its seed, so that those count too whose
    samples were all wrong. The prompts' table needs a text in the column response, completion, answer or chosen.

    Args:
        gold: part of the written in the loss, in [0, 1].

    Source: ReFT (2401.08967), section 4.2: online self-training, ½ and ½.
    """

    gold: float = 0.5
    consumes: ClassVar[type[Selection]] = Weighted
    needs_trace: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.gold <= 1:
            raise ConfigError(f"objective.gold is {self.gold}, but must be in [0, 1]: 0.5 gives both terms the same part")

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        if isinstance(policy, Writes):
            return []
        return [f"the objective SftWithGold learns written responses, which the policy {type(policy).__name__} cannot read"]

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Prompts without a written response; held-out ones need none."""
        return lacking_responses(train)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Weighted, seeds: Sequence[int]) -> torch.Tensor:
        """[B]

        Raises:
            DataError: a prompt without a written response.
        """
        own = [samples[i] for i in part.index]
        asked = [replace(samples[seed % len(samples)].request, index=0) for seed in seeds]
        assert isinstance(policy, Writes)  # checked by ``suits``
        gold = policy.written(asked, [written(request) for request in asked])
        nll, gold_nll = policy.nll([*own, *gold], policy.draw([*own, *gold], [*seeds, *seeds])).chunk(2)
        return (1 - self.gold) * nll * nll.new_tensor(part.weight) + self.gold * gold_nll


def written(request: Request) -> str:
    """The written response to a prompt.

    Raises:
        DataError: there is none.
    """
    text = response(request.prompt)
    if text is None:
        raise DataError(
            f"the prompt {request.prompt.text!r} has no written response: the objective SftWithGold needs a text in the column "
            f"{' or '.join(ANSWERS)} of the prompts' table"
        )
    return text
