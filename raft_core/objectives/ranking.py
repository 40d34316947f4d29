"""Losses on whole groups: RRHF's ranking, and best-of-n distillation by its best and its worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from raft_core.errors import ConfigError
from raft_core.objectives.log_ratio import log_ratios, mean_log_probs, unit_mistakes
from raft_core.protocols import Policy
from raft_core.types import Groups, Sample, Selection

if TYPE_CHECKING:
    import torch


def ranking_loss(scores: torch.Tensor, reward: np.ndarray) -> torch.Tensor:
    """Σ max(0, p_i − p_j) over all pairs of a group with r_i < r_j.

    Worked example, p = (−1, −2, −0.5), r = (3, 1, 1): the second and third are worse than the first; max(0, −2 + 1) +
    max(0, −0.5 + 1) = ½.

    Args:
        scores: [n] log-likelihood per token, p.
        reward: [n] r, higher is better.
    """
    worse = scores.new_tensor(reward[:, None] < reward[None, :])  # [i, j]: i is worse than j
    return ((scores[:, None] - scores[None, :]).relu() * worse).sum()


@dataclass(frozen=True)
class Rrhf:
    """Rank responses to align: in each group the better are to be likelier per token, and the best one is learned.

    An item is a group: its loss is Σ_{r_i < r_j} max(0, p_i − p_j) − nll_weight·p_best, p the mean log-likelihood per token.
    Text only. To be used with ``WholeGroups``; ``trainer.batch_size`` counts groups, each of K samples.

    Args:
        nll_weight: of the likelihood of the best sample; the first of several.

    Source: RRHF (2304.05302), eq. 1 to 4. Differs: the likelihood of the best is per token, as in the authors' code (the paper
    sums), but not over padding; the code's ranking compares with the first sample alone.
    """

    nll_weight: float = 1.0
    consumes: ClassVar[type[Selection]] = Groups
    needs_trace: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.nll_weight < math.inf:
            raise ConfigError(f"objective.nll_weight is {self.nll_weight}, but must not be negative")

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        found = unit_mistakes(policy, "the objective Rrhf", "log-likelihoods of tokens")
        return [f"{mistake}: use Dpo with the selector AllPairs, which ranks samples of any policy" for mistake in found]

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Groups, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each group."""
        import torch

        scored = ~np.isnan(part.reward)
        flat = [samples[i] for i in part.index[scored]]
        likelihoods = mean_log_probs(
            policy, flat, [seed for seed, n in zip(seeds, scored.sum(axis=1), strict=True) for _ in range(n)]
        )
        losses = []
        for own, reward, there in zip(likelihoods.split(scored.sum(axis=1).tolist()), part.reward, scored, strict=True):
            losses.append(ranking_loss(own, reward[there]) - self.nll_weight * own[int(reward[there].argmax())])
        return torch.stack(losses)


def best_of_n_margin(n: int) -> float:
    """(n − 1)·H_{n−1} nats: by how much the best of n is likelier than the worst, relative to the start, under best-of-n.

    Best-of-n has the density n·F^{n−1} relative to the start, F the score's quantile, so the expected log-ratio of best and
    worst is (n − 1)·E[log F_best − log F_worst] = (n − 1)·(1 + 1/2 + … + 1/(n − 1)). n = 2: 1; n = 4: 3·(11/6) = 5.5.

    Source: BoNBoN (2406.00832), where it is 1/(2β*_n).
    """
    return (n - 1) * sum(1 / k for k in range(1, n))


@dataclass(frozen=True)
class BonBon:
    """Best-of-n distillation: the policy is to become the one that draws n samples of the reference and gives the best.

    An item is a group of n scored samples: nll_weight·NLL(best) + (1 − nll_weight)·(Δ − (n − 1)·H_{n−1})², Δ the log-ratio of
    best over worst against the reference, in nats. n, and so the target, is of each group. Text only: for a denoising error
    the target has no meaning. To be used with ``WholeGroups``.

    Args:
        nll_weight: of the best sample's likelihood, in [0, 1]; the paper's α.

    Source: BoNBoN (2406.00832), eq. 9. Its samples are the reference's: with several rounds set ``trainer.reference.every`` to
    1, so that each round distils the best of n of the last.
    """

    nll_weight: float = 0.005
    consumes: ClassVar[type[Selection]] = Groups
    needs_trace: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.nll_weight <= 1:
            raise ConfigError(f"objective.nll_weight is {self.nll_weight}, but must be in [0, 1]")

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        found = unit_mistakes(policy, "the objective BonBon", "log-likelihoods of whole samples")
        return [f"{mistake}: use Dpo with the selector BestVsWorst" for mistake in found]

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Groups, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each group."""
        rows = np.arange(len(part.index))
        best = part.index[rows, np.nanargmax(part.reward, axis=1)]
        worst = part.index[rows, np.nanargmin(part.reward, axis=1)]
        both = [samples[i] for i in (*best, *worst)]
        upper, lower = log_ratios(policy, both, [*seeds, *seeds]).chunk(2)
        margins = upper.new_tensor([best_of_n_margin(int(n)) for n in (~np.isnan(part.reward)).sum(axis=1)])
        loss = (1 - self.nll_weight) * (upper - lower - margins) ** 2
        if not self.nll_weight:
            return loss
        chosen = [samples[i] for i in best]
        return loss + self.nll_weight * policy.nll(chosen, policy.draw(chosen, seeds))
