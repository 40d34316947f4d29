"""On-policy distillation: on what the policy itself has written, its next-token distributions are drawn to a teacher's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch

from raft_core.errors import ConfigError
from raft_core.objectives.averaging import Average, average_mistakes, divisor
from raft_core.protocols import Policy
from raft_core.types import Sample, Selection, Weighted
from raft_text.policy import CausalLM
from raft_text.teacher import Teacher


def jensen_shannon(teacher: torch.Tensor, policy: torch.Tensor, beta: float) -> torch.Tensor:
    """[T] β·KL(P‖M) + (1 − β)·KL(Q‖M) with M = β·P + (1 − β)·Q, of the teacher's P and the policy's Q, in nats.

    At the two ends, where this is 0, what it tends to when it is divided by β or 1 − β: β = 0 is KL(P‖Q), which covers all that
    the teacher may say, and β = 1 is KL(Q‖P), which keeps to what it is sure to say.

    P = (½, ½) and Q = (¾, ¼): at β = 0 ½·ln ⅔ + ½·ln 2 = 0.1438, at β = 1 ¾·ln 1.5 + ¼·ln ½ = 0.1308.

    Args:
        teacher: [T, V] log-probs.
        policy: [T, V] log-probs; differentiable.
        beta: in [0, 1].

    Source: On-Policy Distillation of Language Models (GKD, 2306.13649), section 3; the two ends as in its authors' experiments.
    """
    if beta == 0:
        return _divergence(teacher, policy)
    if beta == 1:
        return _divergence(policy, teacher)
    mixed = torch.logaddexp(teacher + math.log(beta), policy + math.log1p(-beta))
    return beta * _divergence(teacher, mixed) + (1 - beta) * _divergence(policy, mixed)


def _divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """[T] KL(p‖q) of log-probs [T, V]; what p gives no probability adds nothing."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(dim=-1)


class Distillation:
    """The divergence from a teacher's next-token distributions, at every token of the samples.

    Samples of the policy's own are what makes it on-policy: the teacher is asked where the policy goes, and so where it errs.
    No reward is needed to learn; the one that is configured is measured. With ``samples: FromTeacher`` or written responses
    it is the supervised kind.

    Args:
        teacher: a causal model with the same tokenizer: bundled:NAME, a folder, or ORGANISATION/NAME on the Hub; or what was
            trained from one, the folder of an adapter or of a run.
        beta: which divergence: 0 = forward KL(teacher‖policy), 1 = reverse KL(policy‖teacher), between them the generalised
            Jensen–Shannon divergence.
        temperature: by which the logits of both are divided, > 0.
        average: over the tokens (``actions``) of a batch, or over its ``samples``, of each of which the mean is taken.
        dtype: of the teacher's weights; auto = as a policy's.
        quantize: 4bit or 8bit teacher, on CUDA; null = none.

    Source: GKD (2306.13649), algorithm 1. Differs: the share of the policy's own samples is a matter of ``samples``; each
    sample may have a weight; of vocabularies that one model pads to more rows than the other, only the common tokens count.
    """

    consumes: ClassVar[type[Selection]] = Weighted
    needs_trace: ClassVar[bool] = False

    def __init__(
        self,
        teacher: str,
        beta: float = 0.5,
        temperature: float = 1.0,
        average: Average = "actions",
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
        quantize: Literal["4bit", "8bit"] | None = None,
    ):
        mistakes = average_mistakes(average)
        if not 0 <= beta <= 1:
            mistakes.append(f"objective.beta is {beta}, but must be in [0, 1]: 0 is the forward divergence, 1 the reverse one")
        if temperature <= 0:
            mistakes.append(f"objective.temperature is {temperature}, but must be positive; 1 leaves both as they are")
        if mistakes:
            raise ConfigError(mistakes)
        self.beta = beta
        self.temperature = temperature
        self.average: Average = average
        self.teacher = Teacher(teacher, dtype, quantize, "objective.teacher")

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        if not isinstance(policy, CausalLM):
            return [
                f"the objective Distillation compares the tokens of language models, which the policy {type(policy).__name__} "
                "does not write"
            ]
        return self.teacher.mistakes(policy.model, policy.device)

    def attach(self, policy: Policy) -> None:
        """Load the teacher beside the policy.

        Raises:
            ModelError: it cannot be loaded, or has another tokenizer.
        """
        assert isinstance(policy, CausalLM)  # checked by ``suits``
        self.teacher.load(policy.model, policy.device)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Weighted, seeds: Sequence[int]) -> torch.Tensor:
        """[B]"""
        assert isinstance(policy, CausalLM)  # checked by ``suits``
        chosen = [samples[i] for i in part.index]
        rows = policy.replay.compared_with(self.teacher.logits, chosen, self._measure)
        losses = torch.stack([row.sum() if self.average == "actions" else row.mean() for row in rows])
        return losses * losses.new_tensor(part.weight)

    def divisor(self, samples: Sequence[Sample], part: Weighted) -> float:
        """What the losses of a batch are divided by: its tokens or its samples."""
        return divisor([len(samples[i].tensors["tokens"]) for i in part.index], self.average)

    def _measure(self, teacher: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
        """[T] from logits [T, V] of both."""
        known = min(teacher.shape[-1], policy.shape[-1])
        sides = [(each[:, :known] / self.temperature).log_softmax(dim=-1) for each in (teacher, policy)]
        return jensen_shannon(sides[0], sides[1], self.beta)
