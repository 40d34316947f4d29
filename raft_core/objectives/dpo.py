"""Direct preference optimisation: the chosen of a pair likelier than the rejected, both measured against a reference.

Δ = [log π(y_w) − log π_ref(y_w)] − [log π(y_l) − log π_ref(y_l)], y_w the chosen and y_l the rejected sample. On pictures this
is Diffusion-DPO: −log p is the denoising error, the *mean* of the squared error over the latent's elements *without a factor
of ½*, and policy and reference, chosen and rejected, all see the same timestep and noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raft_core import capabilities
from raft_core.errors import ConfigError
from raft_core.objectives.log_ratio import log_ratios, unit_mistakes
from raft_core.objectives.recording import Recorded
from raft_core.protocols import Policy
from raft_core.types import Pairs, Sample, Selection

if TYPE_CHECKING:
    import torch

PairLoss = Literal["sigmoid", "robust", "hinge", "ipo"]
#: β where none is given: of TRL for nats, of Diffusion-DPO for mean squared errors without a ½ (5000 with it).
USUAL_BETA: Mapping[str | None, float] = {"nats": 0.1, "error": 2500.0}


def pair_loss(delta: torch.Tensor, beta: float, loss: PairLoss, smoothing: float = 0.0) -> torch.Tensor:
    """[B] loss of Δ [B], in the unit of 1/β.

    With x = βΔ and smoothing ε:
    sigmoid −(1 − ε)·log σ(x) − ε·log σ(−x); robust [−(1 − ε)·log σ(x) + ε·log σ(−x)]/(1 − 2ε); hinge max(0, 1 − x);
    ipo (Δ − 1/(2β))².

    Worked example, β 0.5, Δ = 2: x = 1, so sigmoid −log σ(1) = 0.3133, hinge 0, ipo (2 − 1)² = 1.

    Source: DPO (2305.18290), eq. 7; its note on noisy labels (smoothing); robust DPO (2403.00409), eq. 12; SLiC (2305.10425) as
    DPO's implementations have it; IPO (2310.12036), eq. 17.
    """
    from torch.nn.functional import logsigmoid

    x = beta * delta
    if loss == "sigmoid":
        return -(1 - smoothing) * logsigmoid(x) - smoothing * logsigmoid(-x)
    if loss == "robust":
        return (-(1 - smoothing) * logsigmoid(x) + smoothing * logsigmoid(-x)) / (1 - 2 * smoothing)
    if loss == "hinge":
        return (1 - x).relu()
    return (delta - 1 / (2 * beta)) ** 2


@dataclass(frozen=True)
class Dpo:
    """Direct preference optimisation on pairs: the chosen likelier, the rejected less likely, than the reference has them.

    To be used with ``BestVsWorst``, ``AllPairs`` or ``RandomPairs``. The reference is the frozen start; with
    ``trainer.reference`` it follows the policy, which makes it iterative, semi-online or online DPO (or IPO).

    Args:
        loss: sigmoid (DPO), robust (where a known part of the pairs is the wrong way round), hinge (SLiC), or ipo, whose loss
            goes up again beyond a margin of 1/(2β) and so does not push pairs apart for ever.
        beta: price of leaving the reference; larger stays nearer to it. Of text per nat of a whole answer, of which 0.1 is
            usual. Of pictures per unit of the *mean* squared denoising error *without ½*, of which 2500 is usual: twice as
            much, 5000, where a formula has the ½, and 2500/N where errors are summed over the N elements of a latent.
            null = the usual one.
        label_smoothing: chance that a pair is the wrong way round, in [0, 0.5); of sigmoid and robust.
        per_token: log-ratios per token, so that long answers do not count for more. TRL's offline IPO has it, its online IPO
            has not. Text only.

    Source: DPO (2305.18290); IPO (2310.12036); Diffusion-DPO (2311.12908), eq. 14, in the form of the script in diffusers'
    ``research_projects/diffusion_dpo``, from which the weighting of timesteps is left out as there.
    """

    loss: PairLoss = "sigmoid"
    beta: float | None = None
    label_smoothing: float = 0.0
    per_token: bool = False
    consumes: ClassVar[type[Selection]] = Pairs
    needs_trace: ClassVar[bool] = False

    def __post_init__(self) -> None:
        mistakes = []
        if self.loss not in ("sigmoid", "robust", "hinge", "ipo"):
            mistakes.append(f"objective.loss is {self.loss!r}: use 'sigmoid', 'robust', 'hinge' or 'ipo'")
        if self.beta is not None and not 0 < self.beta < math.inf:
            mistakes.append(f"objective.beta is {self.beta}, but must be positive; null takes the usual one")
        if not 0 <= self.label_smoothing < 0.5:
            mistakes.append(
                f"objective.label_smoothing is {self.label_smoothing}, but must be in [0, 0.5): 0.1 expects a tenth"
            )
        elif self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            mistakes.append(
                f"objective.label_smoothing is {self.label_smoothing}, which the loss {self.loss!r} does not know: use sigmoid "
                "or robust"
            )
        if mistakes:
            raise ConfigError(mistakes)

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        if self.beta is None and capabilities.nll_unit(policy) is None:
            name = type(policy).__name__
            return [
                f"the policy {name} does not say the unit of its nll (nll_unit), so objective.beta has no usual value: set it"
            ]
        return unit_mistakes(policy, "objective.per_token", "log-likelihoods of tokens") if self.per_token else []

    def measured(
        self, policy: Policy, samples: Sequence[Sample], part: Pairs, seeds: Sequence[int]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """([B] loss of each pair, its figures).

        accuracy: whether Δ > 0; margin: βΔ; chosen, rejected: β times the log-ratio of each.
        """
        beta = USUAL_BETA[capabilities.nll_unit(policy)] if self.beta is None else self.beta
        both = [samples[i] for i in (*part.chosen, *part.rejected)]
        chosen, rejected = log_ratios(policy, both, [*seeds, *seeds], per_term=self.per_token).chunk(2)
        delta = chosen - rejected
        figures = {
            "accuracy": (delta > 0).float(),
            "margin": beta * delta,
            "chosen": beta * chosen,
            "rejected": beta * rejected,
        }
        return pair_loss(delta, beta, self.loss, self.label_smoothing), figures

    def begin(self, policy: Policy, samples: Sequence[Sample], selection: Pairs, carried: Mapping[str, float]) -> Recorded:
        """The loss of one round, with its figures ``dpo/…``."""
        return Recorded(self, "dpo")

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Pairs, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each pair."""
        return self.measured(policy, samples, part, seeds)[0]
