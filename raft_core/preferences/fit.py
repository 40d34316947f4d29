"""Fitting a learner to preferences: mini-batches, early stopping on prompts that were held out, the best epoch kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raft_core.errors import ConfigError, RewardError
from raft_core.preferences.learner import Learner, Scale, raw_scores
from raft_core.preferences.loss import choice_loss, padded
from raft_core.preferences.preference import Item, Preference, flattened, sliced
from raft_core.rng import numpy_rng
from raft_core.sampling import chunks
from raft_core.training.optim import Optimizer, Schedule

if TYPE_CHECKING:
    from raft_core.reporter import Reporter


@dataclass(frozen=True)
class FitSettings:
    """How a reward is fitted.

    Args:
        epochs: at most so many passes over the preferences, ≥ 1.
        batch_size: preferences per update, ≥ 1.
        micro_batch_size: preferences per forward pass, which bounds the memory; null = those of an update.
        patience: epochs without a lower held-out loss after which it ends, ≥ 1.
        held_out_fraction: part of the prompts on which early stopping and the reported accuracy rest, in (0, 1).
        optimizer: AdamW and its settings.
        schedule: of the learning rate.
        seed: of the split, the initial weights and the order.
    """

    epochs: int = 20
    batch_size: int = 32
    micro_batch_size: int | None = None
    patience: int = 3
    held_out_fraction: float = 0.1
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-3))
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {getattr(self, name)}, but must be at least 1"
            for name in ("epochs", "batch_size", "patience")
            if getattr(self, name) < 1
        ]
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            wrong.append(f"micro_batch_size is {self.micro_batch_size}, but must be at least 1, or null")
        if not 0 < self.held_out_fraction < 1:
            wrong.append(f"held_out_fraction is {self.held_out_fraction}, but must be between 0 and 1, both excluded")
        if self.seed < 0:
            wrong.append(f"seed is {self.seed}, but must not be negative")
        if wrong := [*wrong, *self.optimizer.mistakes(), *self.schedule.mistakes()]:
            raise ConfigError(wrong)


@dataclass(frozen=True)
class Epoch:
    """One pass: mean loss of the training preferences while it went on, loss and accuracy on the held-out ones after it."""

    number: int
    train_loss: float
    held_out_loss: float
    held_out_accuracy: float


@dataclass(frozen=True)
class Fitted:
    """What came of a fit; the learner holds the weights of the best epoch.

    Attributes:
        epochs: all that were made; number 0 is the start.
        best: number of the epoch that was kept.
        before: scale of raw scores at the start, by which the losses were taken.
        after: scale of raw scores of what was kept.
    """

    epochs: tuple[Epoch, ...]
    best: int
    before: Scale
    after: Scale

    @property
    def preference_scale(self) -> float:
        """What a difference of normalised scores is multiplied by to be the log-odds that the fit has learned."""
        return self.after.std / self.before.std


@dataclass(frozen=True, eq=False)
class Encoded:
    """Preferences with the frozen part of the work done.

    Attributes:
        preferences: B of them.
        items: encoded candidates of each.
    """

    preferences: Sequence[Preference]
    items: list[list[Any]]

    @classmethod
    def by(cls, learner: Learner, preferences: Sequence[Preference]) -> Encoded:
        encoded = learner.encode(flattened(preferences))
        return cls(preferences, [encoded[part] for part in sliced(preferences)])

    def take(self, rows: Sequence[int] | np.ndarray) -> Encoded:
        return Encoded([self.preferences[i] for i in rows], [self.items[i] for i in rows])


def fit(
    learner: Learner,
    train: Sequence[Preference],
    held_out: Sequence[Preference],
    reference: Sequence[Item],
    settings: FitSettings,
    reporter: Reporter,
) -> Fitted:
    """Fit a loaded learner; it ends with the weights of its best epoch.

    Args:
        train: at least one preference.
        held_out: at least one, of other prompts.
        reference: samples of the reference policy, on which scores have mean 0 and variance 1.

    Raises:
        RewardError: nothing to learn from, or a loss that is not finite.
    """
    if not train or not held_out:
        raise RewardError(
            f"{len(train)} preferences are left to train on and {len(held_out)} to hold out: give preferences of more prompts"
        )
    reporter.line(f"encoding {len(train)} + {len(held_out)} preferences and {len(reference)} reference samples")
    reference_encoded = learner.encode(reference)
    seen, unseen = Encoded.by(learner, train), Encoded.by(learner, held_out)
    before = Scale.of(raw_scores(learner, reference_encoded))
    epochs, best = _epochs(learner, seen, unseen, before, settings, reporter)
    after = Scale.of(raw_scores(learner, reference_encoded))
    return Fitted(tuple(epochs), best, before, after)


def _epochs(
    learner: Learner, seen: Encoded, unseen: Encoded, scale: Scale, settings: FitSettings, reporter: Reporter
) -> tuple[list[Epoch], int]:
    """All epochs that are made, and the number of the best, whose weights the learner has at the end."""
    parameters = learner.parameters()
    optimizer = settings.optimizer.build(list(parameters.values()))
    epochs = [Epoch(0, math.nan, *_held_out(learner, unseen, scale))]
    best: Epoch | None = None  # the start is no candidate: it knows nothing, however lucky it is
    kept: dict[str, torch.Tensor] = {}
    with reporter.phase("epochs", settings.epochs) as bar:
        for number in range(1, settings.epochs + 1):
            loss = _one_epoch(learner, optimizer, seen, scale, settings, number)
            epochs.append(Epoch(number, loss, *_held_out(learner, unseen, scale)))
            bar.advance(1)
            reporter.line(_line(epochs[-1]))
            if best is None or epochs[-1].held_out_loss < best.held_out_loss:
                best, kept = epochs[-1], _copied(parameters)
            elif number - best.number >= settings.patience:
                reporter.line(
                    f"no lower held-out loss for {settings.patience} epochs: the weights of epoch {best.number} are kept"
                )
                break
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(kept[name])
    assert best is not None  # there is one epoch at least
    coin = float(np.mean([math.log(len(preference.candidates)) for preference in unseen.preferences]))
    if best.held_out_loss >= coin:
        reporter.warn(
            f"on held-out prompts the reward is no surer than a coin (loss {best.held_out_loss:.3f}, a coin's {coin:.3f}): it "
            "has learned nothing that holds for other prompts; more preferences, or a lower learning rate, may help"
        )
    return epochs, best.number


def _one_epoch(
    learner: Learner, optimizer: torch.optim.Optimizer, seen: Encoded, scale: Scale, settings: FitSettings, number: int
) -> float:
    """One pass in an order of its own; returns the mean loss."""
    order = numpy_rng(settings.seed, "preferences", number).permutation(len(seen.items))
    steps = math.ceil(len(order) / settings.batch_size)
    total = 0.0
    for step in range(steps):
        rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
        done = (number - 1) * steps + step
        for group in optimizer.param_groups:
            group["lr"] = settings.optimizer.lr * settings.schedule.factor(done, done / (steps * settings.epochs))
        optimizer.zero_grad()
        for part in chunks(rows.tolist(), settings.micro_batch_size or len(rows)):
            loss = preference_losses(learner, seen.take(part), scale).sum() / len(rows)
            if not torch.isfinite(loss):
                raise RewardError(
                    f"the loss became {loss.item()} in epoch {number}: lower the learning rate (--fit.optimizer.lr)"
                )
            loss.backward()
            total += float(loss.detach()) * len(rows)
        optimizer.step()
    return total / len(order)


def preference_losses(learner: Learner, part: Encoded, scale: Scale) -> torch.Tensor:
    """[B] losses of encoded preferences, by scores in this scale."""
    lengths = [len(items) for items in part.items]
    flat = learner([item for items in part.items for item in items])
    scores = scale(padded(flat, lengths))  # [B, n]
    target = torch.zeros_like(scores)
    for row, preference in enumerate(part.preferences):
        target[row, : lengths[row]] = torch.tensor(preference.target, dtype=scores.dtype)
    margin = torch.tensor([preference.margin for preference in part.preferences], dtype=scores.dtype, device=scores.device)
    return choice_loss(scores, target, margin)


def _held_out(learner: Learner, unseen: Encoded, scale: Scale) -> tuple[float, float]:
    """(mean loss without margins, accuracy) on held-out preferences: what is measured does not depend on the margins."""
    from raft_core.preferences.metrics import correct

    flat = scale(raw_scores(learner, [item for items in unseen.items for item in items]))
    losses, hits = [], []
    for part, preference in zip(sliced(unseen.preferences), unseen.preferences, strict=True):
        scores = torch.from_numpy(flat[part])[None]
        losses.append(choice_loss(scores, torch.tensor([preference.target], dtype=scores.dtype), torch.zeros(1)).item())
        hits.append(correct(flat[part], preference))
    return float(np.mean(losses)), float(np.nanmean(hits)) if not np.isnan(hits).all() else math.nan


def _copied(parameters: Any) -> dict[str, torch.Tensor]:
    return {name: copy.deepcopy(parameter.detach()) for name, parameter in parameters.items()}


def _line(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.number}: loss {epoch.train_loss:.4f}, held out {epoch.held_out_loss:.4f}, "
        f"accuracy {epoch.held_out_accuracy:.3f}"
    )
