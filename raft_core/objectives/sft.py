"""What is minimised on the selection.

Every objective is built on the policy's two primitives and returns one value per item; the trainer takes the mean over a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raft_core.protocols import Policy
from raft_core.types import Sample, Selection, Weighted

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sft:
    """Supervised fine-tuning on what was selected: weight × negative log-likelihood.

    A batch's loss divides by the number of items, not by the sum of their weights, so weights with mean 1 over a selection
    leave the learning rate's meaning as it is. Likelihoods 2 and 4 with weights 1 and 0.5: items 2 and 2, loss 2.

    Source: RAFT (2304.06767), algorithm 1, step 3. Differs: samples may carry weights.
    """

    consumes: ClassVar[type[Selection]] = Weighted
    needs_trace: ClassVar[bool] = False

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Weighted, seeds: Sequence[int]) -> torch.Tensor:
        chosen = [samples[i] for i in part.index]
        nll = policy.nll(chosen, policy.draw(chosen, seeds))  # [B]
        return nll * nll.new_tensor(part.weight)
