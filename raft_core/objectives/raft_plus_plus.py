"""RAFT++: every best sample and not one, trained on by importance sampling within a trust region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raft_core.objectives.averaging import Average, average_mistakes
from raft_core.objectives.clipping import refuse
from raft_core.objectives.replay import tolerance_mistakes
from raft_core.objectives.surrogate import Surrogate, SurrogateRound, clip_settings
from raft_core.protocols import Policy
from raft_core.types import Sample, Selection, Weighted

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RaftPlusPlus:
    """Reward-ranked fine-tuning by importance sampling, within a trust region. To be used with ``AllBest``.

    The loss of an action is −weight × min(s, clip(s, 1 − clip, 1 + clip_high)), s = π/π_drawn: of a token, or of a denoising
    step with its log-prob summed over channels and pixels. In a round's first step s is 1 and the gradient that of the
    likelihood per action; later ones no longer push what has become likelier by ``clip_high`` already.

    Args:
        clip: how far below (and above) 1 the ratio may go; null = never clipped, which the paper finds worse than plain RAFT.
        clip_high: how far above, where it is not the same; the paper's clip-higher, 0.28, keeps entropy longer.
        average: over the ``actions`` of a batch, so that long samples weigh more, or over the ``samples``, of each of which the
            mean over its own actions is taken.
        replay_tolerance: how far replayed log-probs may lie from those of the sampling before a round's first update, as a mean
            over actions: nats per token, or times √N of a denoising step of N elements. Beyond it the run stops.

    Source: RAFT++ (2504.11343), whose code averages over tokens. Differs: the code counts the tokens of samples that are not
    trained on too, takes the mean of each micro-batch and not of the whole batch, and adds 0.001 times a divergence.
    """

    clip: float | None = 0.2
    clip_high: float | None = None
    average: Average = "actions"
    replay_tolerance: float = 0.05
    consumes: ClassVar[type[Selection]] = Weighted
    needs_trace: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(
            [
                *clip_settings(self.clip, self.clip_high),
                *average_mistakes(self.average),
                *tolerance_mistakes(self.replay_tolerance),
            ]
        )

    @property
    def surrogate(self) -> Surrogate:
        """The same settings without what the objective is."""
        return Surrogate(self.clip, self.clip_high, self.average, replay_tolerance=self.replay_tolerance)

    def begin(
        self, policy: Policy, samples: Sequence[Sample], selection: Weighted, carried: Mapping[str, float]
    ) -> SurrogateRound:
        """The loss of one round, with its figures ``policy/…``."""
        return SurrogateRound(self.surrogate, weights_of)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Weighted, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each sample, all actions at once."""
        return self.surrogate.losses(policy, [samples[i] for i in part.index], weights_of(part)).values

    def divisor(self, samples: Sequence[Sample], part: Weighted) -> float:
        """What the losses of a batch are divided by."""
        return self.surrogate.divisor([samples[i] for i in part.index])


def weights_of(part: Any) -> list[float]:
    """[B] of a selection."""
    return part.weight.tolist()
