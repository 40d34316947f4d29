"""ORPO: likelihood of the chosen, and odds of the chosen over the rejected, without a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raft_core.errors import ConfigError
from raft_core.objectives.log_ratio import mean_log_probs, unit_mistakes
from raft_core.objectives.recording import Recorded
from raft_core.protocols import Policy
from raft_core.types import Pairs, Sample, Selection

if TYPE_CHECKING:
    import torch

CERTAIN = -1e-6  # nats; odds of a probability of 1 are infinite


def log_odds(mean_log_prob: torch.Tensor) -> torch.Tensor:
    """[B] log p/(1 − p) of log p [B], nats, < 0. log ½ gives 0; log ¾ gives log 3."""
    p = mean_log_prob.clamp(max=CERTAIN)
    return p - (-p.expm1()).log()


@dataclass(frozen=True)
class Orpo:
    """Odds-ratio preference optimisation on pairs: −log p(chosen) − β·log σ(log odds(chosen) − log odds(rejected)).

    p is the geometric mean over an answer's tokens, so it needs log-likelihoods in nats of single tokens: text only. There is
    no reference. To be used with ``BestVsWorst``, ``AllPairs`` or ``RandomPairs``.

    Args:
        beta: weight of the odds ratio, ≥ 0; the paper's λ.

    Source: ORPO (2403.07691), eq. 6 and 7. Differs from TRL: the likelihood is of the answer alone and each answer counts
    alike; TRL's counts the prompt's tokens too and takes the mean over all tokens of a batch.
    """

    beta: float = 0.1
    consumes: ClassVar[type[Selection]] = Pairs
    needs_trace: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.beta < math.inf:
            raise ConfigError(f"objective.beta is {self.beta}, but must not be negative")

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        found = unit_mistakes(policy, "the objective Orpo", "odds, so log-likelihoods of tokens")
        return [f"{mistake}: use Dpo, which takes pairs of any policy" for mistake in found]

    def measured(
        self, policy: Policy, samples: Sequence[Sample], part: Pairs, seeds: Sequence[int]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """([B] loss of each pair, figures: nll per token of the chosen, log odds ratio, whether it is positive)."""
        from torch.nn.functional import logsigmoid

        both = [samples[i] for i in (*part.chosen, *part.rejected)]
        chosen, rejected = mean_log_probs(policy, both, [*seeds, *seeds]).chunk(2)
        ratio = log_odds(chosen) - log_odds(rejected)
        figures = {"nll": -chosen, "log_odds_ratio": ratio, "accuracy": (ratio > 0).float()}
        return -chosen - self.beta * logsigmoid(ratio), figures

    def begin(self, policy: Policy, samples: Sequence[Sample], selection: Pairs, carried: Mapping[str, float]) -> Recorded:
        """The loss of one round, with its figures ``orpo/…``."""
        return Recorded(self, "orpo")

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Pairs, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each pair."""
        return self.measured(policy, samples, part, seeds)[0]
