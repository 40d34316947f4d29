"""Policy gradients on the actions of a sample, tokens or denoising steps, held near the policy that drew it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from raft_core.objectives.averaging import AverageOrConstant, constant_mistakes
from raft_core.objectives.clipping import refuse
from raft_core.objectives.replay import tolerance_mistakes
from raft_core.objectives.surrogate import Divergence, Ratio, Surrogate, SurrogateRound, clip_settings
from raft_core.protocols import Policy
from raft_core.types import Advantages, Sample, Selection

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PolicyGradient:
    """Clipped policy gradient: more of what has a positive advantage, less of what has a negative one.

    The loss of an action is −min(s·A, clip(s, 1 − clip, 1 + clip_high)·A), s = π/π_drawn: of a token, or of a denoising step
    (DDPO), which are differentiated one after the other, so that memory holds one of them. To be used with ``GroupAdvantages``
    (GRPO), ``Rloo`` or ``ReinforceRej``. Before a round's first update the ratio must be 1 up to rounding, or the run stops.

    ========  =======================================================================================================
    GRPO      average: samples, and where the model must stay near, beta: 0.04
    DAPO      average: actions, clip_high: 0.28
    Dr. GRPO  average: constant, length: the longest answer; ``GroupAdvantages`` with scale: none
    GSPO      ratio: sequence, average: samples, clip: 3.0e-4, clip_high: 4.0e-4
    DDPO      ratio: element, clip: 1.0e-4; ``GroupAdvantages`` with clip: 5
    ========  =======================================================================================================

    Args:
        clip: how far below (and above) 1 the ratio may go, before what moves it further is ignored; null = never clipped.
        clip_high: how far above, where it is not the same; 0.28 lets rare actions grow.
        average: over the ``actions`` of a batch, so that long samples weigh more; over the ``samples``, of each of which the
            mean over its own actions is taken; or ``constant``, each sample's sum divided by ``length``.
        length: of average constant.
        ratio: of what. ``action``: a token, or a denoising step with its log-prob summed over channels and pixels; ``element``:
            that log-prob's *mean* over them, as in DDPO and Flow-GRPO, whose clip of 1e-4 means nothing for a sum; or
            ``sequence``: all actions of a sample, by the mean of their log-ratios.
        beta: price of divergence from the reference; 0 = none.
        kl: ``k3`` is exp(d) − d − 1 of each action, d = log π_ref − log π, in the loss. ``k1`` is log π_drawn − log π_ref taken
            off each action's advantage (in the loss it would have no gradient on average). ``prediction`` is the mean squared
            difference of what the network predicts (ε or v, guided) from what the reference does, in the loss; of pictures.
        replay_tolerance: how far replayed log-probs may lie from those of the sampling before a round's first update, as a mean
            over actions: nats per token, or times √N of a denoising step of N elements. Beyond it the run stops.

    Source: Schulman et al. 2017; GRPO (2402.03300), eq. 3 and 4; DAPO (2503.14476); Dr. GRPO (2503.20783); GSPO (2507.18071);
    DDPO (2305.13301); Reinforce-Rej (2504.11343). No value baseline. Differs: a batch's mean is over the whole batch, however
    it is cut.
    """

    clip: float | None = 0.2
    clip_high: float | None = None
    average: AverageOrConstant = "actions"
    length: int | None = None
    ratio: Ratio = "action"
    beta: float = 0.0
    kl: Divergence = "k3"
    replay_tolerance: float = 0.05
    consumes: ClassVar[type[Selection]] = Advantages
    needs_trace: ClassVar[bool] = True

    def __post_init__(self) -> None:
        mistakes = [*clip_settings(self.clip, self.clip_high), *constant_mistakes(self.average, self.length)]
        if self.ratio not in ("action", "element", "sequence"):
            mistakes.append(f"objective.ratio is {self.ratio!r}: use 'action', 'element' or 'sequence'")
        if not 0 <= self.beta < math.inf:
            mistakes.append(f"objective.beta is {self.beta}, but must not be negative")
        if self.kl not in ("k1", "k3", "prediction"):
            mistakes.append(f"objective.kl is {self.kl!r}: use 'k3', 'k1' or 'prediction'")
        refuse([*mistakes, *tolerance_mistakes(self.replay_tolerance)])

    @property
    def surrogate(self) -> Surrogate:
        """The same settings without what the objective is."""
        return Surrogate(**{each.name: getattr(self, each.name) for each in fields(Surrogate)})

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        return self.surrogate.suits(policy)

    def begin(
        self, policy: Policy, samples: Sequence[Sample], selection: Advantages, carried: Mapping[str, float]
    ) -> SurrogateRound:
        """The loss of one round, with its figures ``policy/…``."""
        return SurrogateRound(self.surrogate, advantages_of)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Advantages, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each sample, all actions at once."""
        return self.surrogate.losses(policy, [samples[i] for i in part.index], advantages_of(part)).values

    def divisor(self, samples: Sequence[Sample], part: Advantages) -> float:
        """What the losses of a batch are divided by."""
        return self.surrogate.divisor([samples[i] for i in part.index])


def advantages_of(part: Any) -> list[float]:
    """[B] of a selection."""
    return part.advantage.tolist()
