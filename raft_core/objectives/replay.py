"""Samples replayed: their actions' log-probs now, beside those under which they were drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from raft_core.capabilities import ReplaysSteps
from raft_core.errors import ModelError
from raft_core.protocols import Policy
from raft_core.types import Sample

#: Nats. e^20 is far outside of every trust region, and its gradient is still a number.
MAX_LOG_RATIO = 20.0
#: How far replayed log-probs may lie from those of the sampling, as a mean over actions: nats, times √(elements of an action).
#: Float32 stays a thousand times nearer, half precision just below it; another temperature or guidance leads far beyond.
TOLERANCE = 0.05


def log_probs_when_drawn(sample: Sample) -> torch.Tensor:
    """[S] log-prob of each action of a sample when it was drawn, nats.

    Raises:
        ModelError: it was drawn without a trace.
    """
    row = sample.tensors.get("step_log_probs")
    if row is None:
        raise ModelError(
            "a sample does not keep the log-probs under which it was drawn: the policy's sample(trace=True) has to put "
            "step_log_probs into its tensors"
        )
    return row


def drawn_log_probs(samples: Sequence[Sample], steps: int) -> torch.Tensor:
    """[B, steps] log-prob of each action when it was drawn, nats; 0 behind the last.

    Raises:
        ModelError: a sample without them, or with more of them.
    """
    table = torch.zeros(len(samples), steps)
    for line, sample in zip(table, samples, strict=True):
        row = log_probs_when_drawn(sample)
        if len(row) > steps:
            raise ModelError(f"a sample was drawn in {len(row)} actions, but step_log_probs replays {steps} of them")
        line[: len(row)] = row
    return table


def drawn_masks(samples: Sequence[Sample]) -> list[torch.Tensor]:
    """[S] bool of each sample: which of its actions count.

    Raises:
        ModelError: a sample without a trace.
    """
    rows = [log_probs_when_drawn(sample) for sample in samples]
    return [s.tensors.get("step_mask", torch.ones_like(row)).bool() for s, row in zip(samples, rows, strict=True)]


def drawn_lengths(samples: Sequence[Sample]) -> list[int]:
    """[B] actions of each sample that count.

    Raises:
        ModelError: a sample without a trace.
    """
    return [int(mask.sum()) for mask in drawn_masks(samples)]


def step_parts(policy: Policy, samples: Sequence[Sample]) -> list[list[int] | None]:
    """The actions in parts that can be replayed and differentiated one after the other; [None] = all at once.

    Steps that count for no sample, which drew no noise, are left out.
    """
    if not isinstance(policy, ReplaysSteps) or not samples:
        return [None]
    counted = torch.nn.utils.rnn.pad_sequence(drawn_masks(samples), batch_first=True).any(dim=0)
    return [[step] for step in counted.nonzero().flatten().tolist()] or [None]


def elements(policy: Policy, samples: Sequence[Sample]) -> int:
    """Numbers that an action consists of, over which its log-prob sums: 1 of a token, those of a latent of a denoising step."""
    return policy.step_elements(samples) if isinstance(policy, ReplaysSteps) else 1


class ReplayCheck:
    """Holds replayed log-probs against those of the sampling, before a round's first update, when nothing has moved yet.

    The ratio of the two is then 1, up to rounding. If it is not, the policy that trains is not the one that drew, and every
    ratio is wrong.
    """

    def __init__(self) -> None:
        self._seen: set[Any] = set()
        self._total = 0.0
        self._actions = 0

    @property
    def error(self) -> float:
        """Mean |log ratio| of the checked actions, nats; NaN before the first."""
        return self._total / self._actions if self._actions else math.nan

    def __call__(
        self,
        key: Any,
        moved: torch.Tensor,
        mask: torch.Tensor,
        samples: Sequence[Sample],
        policy: Policy,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Check the first replay of each key; later ones are past an update.

        Args:
            key: which part of the actions is replayed.
            moved: [...] log π − log π_drawn of actions, nats.
            mask: [...] bool, which of them count.
            samples: whose they are.
            tolerance: how far they may lie from 0, as a mean over actions, in nats times √(elements of an action).

        Raises:
            ModelError: they are not those of the sampling.
        """
        if key in self._seen:
            return
        self._seen.add(key)
        apart = moved.detach()[mask].abs().float()
        self._total += float(apart.sum())
        self._actions += apart.numel()
        allowed = tolerance * math.sqrt(elements(policy, samples))
        if apart.numel() and not float(apart.mean()) <= allowed:
            raise ModelError(replay_words(float(apart.mean()), allowed, samples, policy))


def replay_words(found: float, allowed: float, samples: Sequence[Sample], policy: Policy) -> str:
    """What is told of a replay that is not what was sampled, with what differs as far as it can be told."""
    words = (
        f"before the first update, replayed actions have log-probs {found:.3g} nats from those that they were drawn with, and "
        f"{allowed:.3g} is allowed for rounding: the policy that trains is not the one that drew"
    )
    differing = differing_settings(samples[0].meta, policy.describe())
    if differing:
        return f"{words}. It differs in {'; '.join(differing)}"
    return (
        f"{words}. Its settings of sampling are the same, so look at precision (dtype, trainer.mixed_precision: choose one for "
        "both), at padding, and at another engine that drew (sampling.engine). If it is rounding alone, raise "
        "objective.replay_tolerance"
    )


def tolerance_mistakes(tolerance: float) -> list[str]:
    """What is wrong with an objective's ``replay_tolerance``, in words."""
    if 0 < tolerance < math.inf:
        return []
    return [f"objective.replay_tolerance is {tolerance}, but must be positive, in nats; 0.05 leaves room for half precision"]


def differing_settings(meta: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Settings of sampling that a sample remembers otherwise than the policy has them now."""
    now = facts.get("sampling", {})
    return [
        f"{name}: {value} when drawn, {now[name]} now"
        for name, value in meta.items()
        if isinstance(now, Mapping) and name in now and isinstance(value, (int, float, str)) and now[name] != value
    ]
