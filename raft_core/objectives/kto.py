"""KTO: good samples likelier and bad ones less likely, each for itself, as far as they are from where the policy is anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from raft_core import capabilities
from raft_core.errors import ConfigError
from raft_core.objectives.log_ratio import log_ratios
from raft_core.objectives.recording import Recorded
from raft_core.protocols import Policy
from raft_core.sampling import chunks
from raft_core.types import Labels, Sample, Selection

if TYPE_CHECKING:
    import torch

Point = Literal["mismatched", "batch"]
#: β where none is given: of TRL for nats, of Diffusion-KTO's script for mean squared errors without a ½.
USUAL_BETA: Mapping[str | None, float] = {"nats": 0.1, "error": 1000.0}


def kto_loss(ratio: torch.Tensor, good: torch.Tensor, point: float, beta: float, weights: tuple[float, float]) -> torch.Tensor:
    """[B] w·(1 − σ(±β(ratio − z))), + and the first weight for good samples, − and the second for bad ones.

    Worked example, β ½, z = 1: a good sample at a ratio of 3 has 1 − σ(1) = 0.2689, a bad one there 1 − σ(−1) = 0.7311.

    Args:
        ratio: [B] log π − log π_ref, in the unit of 1/β.
        good: [B] bool.
        point: z, the reference point, in the same unit.
        beta: > 0.
        weights: of good samples and of bad ones.

    Source: KTO (2402.01306), eq. 7 and 8.
    """
    sign = good.to(ratio.dtype) * 2 - 1
    weight = good.to(ratio.dtype) * (weights[0] - weights[1]) + weights[1]
    return weight * (1 - (sign * beta * (ratio - point)).sigmoid())


@dataclass(frozen=True)
class Kto:
    """KTO on labels: good samples likelier than the reference has them, bad ones less likely, until they are far enough.

    How far is measured from a reference point z ≥ 0, which the policy has reached for samples at large: a batch is needed to
    estimate it, of at least 2. To be used with ``ThresholdLabels`` or ``MedianLabels``. On pictures this is Diffusion-KTO, with
    denoising errors at a drawn timestep and noise in the place of −log p.

    Args:
        beta: as of ``Dpo``: of text per nat of a whole answer (0.1 is usual), of pictures per unit of the mean squared
            denoising error without ½ (1000 is usual); null = the usual one.
        good_weight: of good samples in the loss, ≥ 0. Where there are n₊ good and n₋ bad ones, the paper keeps
            good_weight·n₊ / (bad_weight·n₋) between 1 and 4/3.
        bad_weight: of bad samples.
        point: what z is the mean log-ratio of, never below 0: ``mismatched`` = samples of the batch under the prompt of another
            (a pass more); ``batch`` = the batch's own samples; null = mismatched for text, batch for pictures, as their authors
            have it.

    Source: KTO (2402.01306), section 4.1; Diffusion-KTO (2404.04465), code. Differs: z is of the whole batch, however it is cut
    and shared out.
    """

    beta: float | None = None
    good_weight: float = 1.0
    bad_weight: float = 1.0
    point: Point | None = None
    consumes: ClassVar[type[Selection]] = Labels
    needs_trace: ClassVar[bool] = False
    #: Items of a batch without which it means nothing.
    least_batch: ClassVar[int] = 2

    def __post_init__(self) -> None:
        mistakes = []
        if self.beta is not None and not 0 < self.beta < math.inf:
            mistakes.append(f"objective.beta is {self.beta}, but must be positive; null takes the usual one")
        for name in ("good_weight", "bad_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                mistakes.append(f"objective.{name} is {getattr(self, name)}, but must not be negative")
        if self.point not in (None, "mismatched", "batch"):
            mistakes.append(f"objective.point is {self.point!r}: use 'mismatched' or 'batch', or null for the usual one")
        if mistakes:
            raise ConfigError(mistakes)

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        if self.beta is not None or capabilities.nll_unit(policy) is not None:
            return []
        name = type(policy).__name__
        return [f"the policy {name} does not say the unit of its nll (nll_unit), so objective.beta has no usual value: set it"]

    def reference_point(self, policy: Policy, samples: Sequence[Sample], batch: Labels, seeds: Sequence[int]) -> float:
        """z of a batch, in the unit of the policy's nll; no gradient."""
        import torch

        chosen = [samples[i] for i in batch.index]
        usual = "batch" if capabilities.nll_unit(policy) == "error" else "mismatched"
        asked = mismatched(chosen) if (self.point or usual) == "mismatched" else chosen
        found = []
        with torch.no_grad():
            for part in chunks(range(len(asked)), max(policy.batch_size, 1)):
                found += log_ratios(policy, [asked[i] for i in part], [seeds[i] for i in part]).tolist()
        return max(0.0, sum(found) / len(found))

    def measured(
        self, policy: Policy, samples: Sequence[Sample], part: Labels, seeds: Sequence[int], point: float
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """([B] loss of each sample, its figures).

        margin: β(log-ratio − z) of a good sample, its negative of a bad one; accuracy: whether that is positive; point: βz.
        """
        beta = USUAL_BETA[capabilities.nll_unit(policy)] if self.beta is None else self.beta
        ratio = log_ratios(policy, [samples[i] for i in part.index], seeds)
        good = ratio.new_tensor(part.good).bool()
        margin = beta * (ratio.detach() - point) * (good.to(ratio.dtype) * 2 - 1)
        figures = {"margin": margin, "accuracy": (margin > 0).float(), "point": margin.new_full(margin.shape, beta * point)}
        return kto_loss(ratio, good, point, beta, (self.good_weight, self.bad_weight)), figures

    def begin(self, policy: Policy, samples: Sequence[Sample], selection: Labels, carried: Mapping[str, float]) -> KtoRound:
        """The loss of one round, with its figures ``kto/…``."""
        return KtoRound(self)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Labels, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of samples that are a batch of their own."""
        return self.measured(policy, samples, part, seeds, self.reference_point(policy, samples, part, seeds))[0]


@dataclass(eq=False)
class KtoRound:
    """KTO's loss in one round, with the reference point of the batch that is being trained on.

    Attributes:
        objective: its settings.
        carried: nothing is left for the next round.
    """

    objective: Kto
    carried: Mapping[str, float] = field(default_factory=dict)
    _point: float | None = None
    _recorded: Recorded = field(init=False)

    def __post_init__(self) -> None:
        self._recorded = Recorded(self, "kto")

    def prepare(self, policy: Policy, samples: Sequence[Sample], batch: Labels, seeds: Sequence[int]) -> None:
        """Estimate z of a whole batch before its losses are asked for."""
        self._point = self.objective.reference_point(policy, samples, batch, seeds)

    def measured(
        self, policy: Policy, samples: Sequence[Sample], part: Labels, seeds: Sequence[int]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """As of ``Kto``, with the batch's z; without one before, of the part itself."""
        point = self.objective.reference_point(policy, samples, part, seeds) if self._point is None else self._point
        return self.objective.measured(policy, samples, part, seeds, point)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Labels, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each sample."""
        return self._recorded(policy, samples, part, seeds)

    def figures(self) -> dict[str, float]:
        """kto/margin, kto/accuracy, kto/point, as ``Kto.measured`` has them."""
        return self._recorded.figures()


def mismatched(chosen: Sequence[Sample]) -> list[Sample]:
    """Each prompt with the output of the next sample that answers another prompt; of the next one where there is no other."""
    n = len(chosen)
    found = []
    for place, sample in enumerate(chosen):
        others = [chosen[(place + step) % n] for step in range(1, n + 1)]
        other = next((each for each in others if each.prompt.id != sample.prompt.id), others[0])
        found.append(replace(other, request=replace(other.request, prompt=sample.prompt)))
    return found
