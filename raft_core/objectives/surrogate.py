"""PPO's clipped surrogate on the actions of traced samples: of what the ratio is, how it is averaged, what divergence costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import torch

from raft_core.capabilities import PredictsSteps, ReplaysSteps
from raft_core.objectives.averaging import AverageOrConstant, divisor, sample_losses
from raft_core.objectives.clipping import clip_mistakes, clipped_surrogate
from raft_core.objectives.replay import (
    MAX_LOG_RATIO,
    TOLERANCE,
    ReplayCheck,
    drawn_lengths,
    drawn_log_probs,
    elements,
    log_probs_when_drawn,
    step_parts,
)
from raft_core.protocols import Policy
from raft_core.types import Sample

Ratio = Literal["action", "element", "sequence"]
Divergence = Literal["k1", "k3", "prediction"]
Steps = Sequence[int] | None


@dataclass(frozen=True)
class Surrogate:
    """How the actions of samples become a loss.

    Args:
        clip: how far a ratio may fall below 1; None = it is never clipped.
        clip_high: how far it may rise above 1; None = as far as ``clip``.
        average: over what a batch of the losses is averaged.
        length: what each sample's sum is divided by where that is a constant.
        ratio: of what: an action; an element of an action, that is the ratio of the action to the power 1/elements; or all
            actions of a sample, to the power 1/actions.
        beta: price of divergence from the reference, ≥ 0.
        kl: how divergence is measured.
        replay_tolerance: of ``ReplayCheck``.
    """

    clip: float | None = 0.2
    clip_high: float | None = None
    average: AverageOrConstant = "actions"
    length: int | None = None
    ratio: Ratio = "action"
    beta: float = 0.0
    kl: Divergence = "k3"
    replay_tolerance: float = TOLERANCE

    def parts(self, policy: Policy, samples: Sequence[Sample]) -> list[Any]:
        """Actions that are differentiated one part after the other, so that memory holds one; [None] = all at once."""
        return [None] if self.ratio == "sequence" else step_parts(policy, samples)

    def losses(self, policy: Policy, chosen: Sequence[Sample], advantage: Sequence[float], steps: Steps = None) -> Losses:
        """Of each sample, summed or averaged over its actions as ``average`` has it.

        Args:
            chosen: B traced samples.
            advantage: [B].
            steps: these actions alone; None = all.

        Raises:
            ModelError: samples without the log-probs of when they were drawn.
        """
        replayed = replay(policy, chosen, steps, predictions=self.beta > 0 and self.kl == "prediction")
        unit = elements(policy, chosen) if self.ratio == "element" else 1
        moved = replayed.moved / unit
        if self.ratio == "sequence":  # one ratio for all actions of a sample
            whole = moved.sum(dim=1) / replayed.mask.sum(dim=1).clamp(min=1)
            moved = whole[:, None].expand_as(moved)
        # An infinite ratio would be clipped, but its gradient would be 0 · ∞.
        moved = moved.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        factor = moved.new_tensor(advantage)[:, None]
        priced, costs = self._divergence(policy, chosen, replayed, steps, unit)
        low, high = self.bounds
        losses = clipped_surrogate(moved, torch.zeros_like(moved), factor - self.beta * priced, low, high) + self.beta * costs
        lengths = None if steps is None else drawn_lengths(chosen)
        ratio = moved.detach().exp()
        return Losses(
            sample_losses(losses, replayed.mask, self.average, lengths),
            replayed.moved.detach(),
            replayed.mask,
            outside=(ratio < 1 - low) | (ratio > 1 + high),
            divergence=(priced + costs).detach(),
        )

    @property
    def bounds(self) -> tuple[float, float]:
        """How far below and above 1 a ratio may go."""
        if self.clip is None:
            return 1.0, math.inf
        return self.clip, self.clip if self.clip_high is None else self.clip_high

    def _divergence(
        self, policy: Policy, chosen: Sequence[Sample], replayed: Replayed, steps: Steps, unit: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, S] what is taken off the advantage and what is added to the loss, both before β."""
        none = torch.zeros_like(replayed.moved)
        if self.beta == 0:
            return none, none
        if self.kl == "prediction":
            with torch.no_grad():
                start = cast(PredictsSteps, policy).step_predictions(chosen, reference=True, **given(steps))[1]
            assert replayed.predictions is not None
            return none, (replayed.predictions - start).float().square().flatten(2).mean(dim=2)
        with torch.no_grad():
            start = policy.step_log_probs(chosen, reference=True, **given(steps))[0].float()
        if self.kl == "k1":
            return torch.where(replayed.mask, (replayed.drawn - start) / unit, 0.0), none
        apart = (torch.where(replayed.mask, start - replayed.log_probs, 0.0) / unit).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        return none, apart.exp() - apart - 1

    def divisor(self, chosen: Sequence[Sample]) -> float:
        """What the sum of a batch's losses is divided by.

        Raises:
            ModelError: samples without the log-probs of when they were drawn.
        """
        return divisor(drawn_lengths(chosen), self.average, self.length)

    def suits(self, policy: Policy) -> list[str]:
        """Why a policy will not do, in words."""
        found = []
        if self.ratio == "element" and not isinstance(policy, ReplaysSteps):
            found.append(
                "objective.ratio is 'element', for actions of many numbers, such as denoising steps; those of the policy "
                f"{type(policy).__name__} are not: use 'action' or 'sequence'"
            )
        if self.beta and self.kl == "prediction" and not isinstance(policy, PredictsSteps):
            found.append(
                "objective.kl is 'prediction', which compares what a network predicts at denoising steps, and the policy "
                f"{type(policy).__name__} has none: use 'k3' or 'k1'"
            )
        return found


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses of samples, and what was found on the way.

    Attributes:
        values: [B]; differentiable. Nothing else is.
        moved: [B, S] log-prob of each action now less that when it was drawn, nats.
        mask: [B, S] bool, which actions count.
        outside: [B, S] bool, ratios that the trust region does not hold.
        divergence: [B, S] from the reference, as it is measured.
    """

    values: torch.Tensor
    moved: torch.Tensor
    mask: torch.Tensor
    outside: torch.Tensor
    divergence: torch.Tensor


@dataclass(frozen=True, eq=False)
class Replayed:
    """What the replay of samples says.

    Attributes:
        log_probs: [B, S] of each action now, nats; differentiable.
        drawn: [B, S] when it was drawn; 0 behind the last.
        moved: [B, S] log_probs − drawn, 0 where the mask is false; differentiable.
        mask: [B, S] bool, which actions count.
        predictions: [B, S, …] what the network predicted, if that was asked for; differentiable.
    """

    log_probs: torch.Tensor
    drawn: torch.Tensor
    moved: torch.Tensor
    mask: torch.Tensor
    predictions: torch.Tensor | None = None


def replay(policy: Policy, chosen: Sequence[Sample], steps: Steps = None, *, predictions: bool = False) -> Replayed:
    """Replay traced samples, or some of their actions.

    Raises:
        ModelError: samples without the log-probs of when they were drawn.
    """
    predicted = None
    if predictions:
        log_probs, predicted, mask = cast(PredictsSteps, policy).step_predictions(chosen, **given(steps))
    else:
        log_probs, mask = policy.step_log_probs(chosen, **given(steps))
    width = log_probs.shape[1] if steps is None else max(len(log_probs_when_drawn(sample)) for sample in chosen)
    drawn = drawn_log_probs(chosen, width)
    drawn = (drawn if steps is None else drawn[:, list(steps)]).to(log_probs)
    return Replayed(log_probs, drawn, torch.where(mask, log_probs - drawn, 0.0), mask, predicted)


def given(steps: Steps) -> dict[str, Any]:
    """As arguments: a policy that replays all its actions at once need not know of steps."""
    return {} if steps is None else {"steps": steps}


def clip_settings(clip: float | None, clip_high: float | None) -> list[str]:
    """What is wrong with an objective's two widths, in words."""
    if clip is not None:
        return clip_mistakes(clip, clip_high)
    if clip_high is None:
        return []
    return [f"objective.clip_high is {clip_high}, but clip is null: give both, or neither for no clipping at all"]


Values = Callable[[Any], Sequence[float]]


@dataclass(frozen=True, eq=False)
class SurrogateRound:
    """The loss of one round, which checks first that what is replayed is what was sampled, and keeps figures.

    Attributes:
        settings: of the loss.
        values: what of a selection multiplies the ratios: advantages or weights.
        carried: nothing is left for the next round.
    """

    settings: Surrogate
    values: Values
    carried: Mapping[str, float] = field(default_factory=dict)
    _check: ReplayCheck = field(default_factory=ReplayCheck)
    _totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("actions", "outside", "divergence"), 0.0))

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each sample, all actions at once."""
        return self._losses(None, policy, samples, part, seeds)

    def passes(self, policy: Policy, samples: Sequence[Sample], part: Any) -> list[Callable[..., torch.Tensor]]:
        """The losses of parts of the actions, which add up to the whole."""
        return [partial(self._losses, steps) for steps in self.settings.parts(policy, [samples[i] for i in part.index])]

    def _losses(self, steps: Steps, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]) -> torch.Tensor:
        chosen = [samples[i] for i in part.index]
        found = self.settings.losses(policy, chosen, self.values(part), steps)
        key, tolerance = None if steps is None else tuple(steps), self.settings.replay_tolerance
        self._check(key, found.moved, found.mask, chosen, policy, tolerance)
        self._totals["actions"] += float(found.mask.sum())
        for name, values in (("outside", found.outside), ("divergence", found.divergence)):
            self._totals[name] += float(values[found.mask].sum())
        return found.values

    def divisor(self, samples: Sequence[Sample], part: Any) -> float:
        """What the losses of a batch are divided by."""
        return self.settings.divisor([samples[i] for i in part.index])

    def figures(self) -> dict[str, float]:
        """policy/replay_error: mean |log ratio| before the first update, nats; policy/clip_fraction of actions; policy/kl."""
        actions = max(self._totals["actions"], 1)
        found = {"replay_error": self._check.error, "clip_fraction": self._totals["outside"] / actions}
        if self.settings.beta:
            found["kl"] = self._totals["divergence"] / actions
        return {f"policy/{name}": value for name, value in found.items() if not math.isnan(value)}
