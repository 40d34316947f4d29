"""Fine-tuning on a selection, batch by batch, the optimiser carried over from round to round."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from raft_core import capabilities
from raft_core.errors import ConfigError, MachineLack, NotFiniteError
from raft_core.machine.processes import Processes
from raft_core.protocols import Objective, Policy, RoundLoss, Staged
from raft_core.reporter import Reporter, Silent
from raft_core.rng import numpy_rng, seed_for
from raft_core.training.optim import Optimizer, Schedule
from raft_core.training.reference import Follower, Reference
from raft_core.types import Sample, Selection

if TYPE_CHECKING:
    import torch

    from raft_core.training.update import Step

ADAMW = Optimizer()
CONSTANT = Schedule()
START = Reference()
REFERENCE = "reference/"  # before the parameter's name, among the tensors of the trainer
MAX_SKIPPED_IN_A_ROW = 5


class Trainer:
    """Minimises an objective on each round's selection.

    A batch's loss is the mean over its items of the objective's values: their sum divided by ``batch_size``, whatever their
    weights and however the batch is cut into micro-batches or spread over processes. (An objective that averages over tokens
    has it divided by the batch's tokens instead, see ``raft_core.capabilities.Divides``.) Every item of every step has a seed
    of its own, so 1 × 8, 8 × 1 and two processes with 4 each are the same step up to rounding.

    Args:
        optimizer: what updates the weights.
        schedule: how the learning rate goes.
        batch_size: items per optimiser step, over all processes. It may exceed the selection: an item then comes again with
            fresh noise.
        micro_batch_size: items per forward and backward pass of one process; the whole share by default. Halved for good when
            memory runs out.
        steps: optimiser steps per round; give this or ``epochs``.
        epochs: passes over the selection per round, rounded up to whole batches; 1 if neither is given.
        max_grad_norm: the gradient of a batch is scaled down to this norm; null = never.
        ema_decay: keep an exponential moving average of the weights, which is then sampled, evaluated and exported from
            wherever the run uses ``averaged``; null = none.
        mixed_precision: ``bf16`` or ``fp16`` for the forward pass; trainable weights, gradients and moments stay float32.
        reference: what losses with a reference compare the policy with; the frozen start by default.
    """

    def __init__(
        self,
        optimizer: Optimizer = ADAMW,
        schedule: Schedule = CONSTANT,
        batch_size: int = 8,
        micro_batch_size: int | None = None,
        steps: int | None = None,
        epochs: int | None = None,
        max_grad_norm: float | None = 1.0,
        ema_decay: float | None = None,
        mixed_precision: Literal["no", "fp16", "bf16"] = "no",
        reference: Reference = START,
    ):
        self.optimizer = optimizer
        self.schedule = schedule
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.steps = steps
        self.epochs = 1 if steps is None and epochs is None else epochs
        self.max_grad_norm = max_grad_norm
        self.ema_decay = ema_decay
        self.mixed_precision = mixed_precision
        self.reference = reference
        if mistakes := self._mistakes():
            raise ConfigError(mistakes)

    def _mistakes(self) -> list[str]:
        found = [*self.optimizer.mistakes(), *self.schedule.mistakes(), *self.reference.mistakes()]
        for name in ("batch_size", "micro_batch_size", "steps", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                found.append(f"trainer.{name} is {value}, but must be at least 1")
        if self.steps is not None and self.epochs is not None:
            found.append(
                f"trainer.steps is {self.steps} and trainer.epochs is {self.epochs}: give one of the two, null for the other"
            )
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            found.append(f"trainer.max_grad_norm is {self.max_grad_norm}, but must be positive; null switches clipping off")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            found.append(
                f"trainer.ema_decay is {self.ema_decay}, but must lie between 0 and 1, as 0.99 does; null switches it off"
            )
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            found.append(f"trainer.mixed_precision is {self.mixed_precision!r}: use 'no', 'fp16' or 'bf16'")
        return found

    def check(self) -> list[str]:
        """What this machine cannot do of what is asked, in words; loads nothing."""
        found: list[str] = [MachineLack(f"trainer.{mistake}") for mistake in self.optimizer.check()]
        if self.mixed_precision == "no":
            return found
        from raft_core.machine.devices import native_bf16, resolve_device

        device = resolve_device()
        if self.mixed_precision == "bf16" and not native_bf16(device):
            where = (
                "this CPU emulates bfloat16, hundreds of times slower" if device.type == "cpu" else f"{device} has no bfloat16"
            )
            found.append(MachineLack(f"trainer.mixed_precision is 'bf16', but {where}: use 'no'"))
        if self.mixed_precision == "fp16" and device.type == "cpu":
            found.append(
                MachineLack("trainer.mixed_precision is 'fp16', which needs an accelerator, and there is only a CPU: use 'no'")
            )
        return found

    def attach(self, policy: Policy, seed: int, rounds: int, reporter: Reporter | None = None) -> None:
        """Take on a loaded policy for a run of ``rounds`` rounds; the optimiser starts afresh.

        Raises:
            ModelError: nothing to train, or trainable weights that are not float32.
            ConfigError: a batch that cannot be shared out equally among the processes.
        """
        from raft_core.training.shards import sharding_asked
        from raft_core.training.update import Updater

        self._reporter: Reporter = reporter or Silent()
        self._seed = seed
        self._rounds = rounds
        self._step = 0
        self._skipped_in_a_row = 0
        self._carried: dict[str, float] = {}
        self._processes = Processes.current()
        share, rest = divmod(self.batch_size, self._processes.count)
        if rest:
            n = self._processes.count
            raise ConfigError(
                f"trainer.batch_size is {self.batch_size}, which {n} processes cannot share equally: use a multiple of {n}"
            )
        if self.reference.every is not None and sharding_asked():
            raise ConfigError(
                "trainer.reference.every is set, but a reference that follows the policy cannot take its place while FSDP "
                "spreads the weights over processes: leave it null, or train without FSDP"
            )
        self._follower = Follower(self.reference, policy.trainable)
        self._updater = Updater(
            policy,
            self.optimizer,
            micro_batch_size=min(self.micro_batch_size or share, share),
            max_grad_norm=self.max_grad_norm,
            ema_decay=self.ema_decay,
            mixed_precision=self.mixed_precision,
            warn=self._reporter.warn,
        )

    def fit(
        self, policy: Policy, objective: Objective, samples: Sequence[Sample], selection: Selection, rnd: int
    ) -> dict[str, float]:
        """Train on one round's selection.

        Returns:
            train/steps, train/skipped_steps, and of the steps that were not skipped: train/loss (mean), train/loss_first,
            train/loss_last, train/lr (of the last step), train/grad_norm (mean, before clipping), and where there are any
            train/failed_items, left out of their steps because their loss was not finite. And the objective's own.

        Raises:
            DeviceError: not even one item fits into memory.
            NotFiniteError: several steps in a row without a finite loss and gradient, over rounds too.
        """
        import torch

        self._follower.begin(rnd)
        policy = self._follower.seen_by(policy)
        if not len(selection):
            self._reporter.warn(f"round {rnd}: the selection is empty, nothing is trained on")
            return {"train/steps": 0, "train/skipped_steps": 0}
        steps = self.steps or math.ceil((self.epochs or 1) * len(selection) / self.batch_size)
        loss = objective.begin(policy, samples, selection, self._carried) if isinstance(objective, Staged) else objective
        tally = Tally(self._skipped_in_a_row)
        device = self._updater.device
        # Dropout draws from torch's global state: seeded before each step, given back at the end.
        forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with self._reporter.phase("training", steps) as bar, forked, self._updater.round():
            for step, items in enumerate(batches(len(selection), self.batch_size, steps, self._seed, rnd)):
                lr = self.optimizer.lr * self.schedule.factor(self._step, (rnd - 1 + step / steps) / self._rounds)
                taken = self._update(policy, loss, samples, selection.take(items), (rnd, step), lr)
                tally.add(taken, lr)
                self._complain(taken, tally, f"round {rnd}, step {step + 1}")
                self._step += 1
                bar.advance(1)
        self._follower.rest()
        self._skipped_in_a_row = tally.in_a_row
        return tally.metrics() | self._left_by(loss)

    def _left_by(self, loss: Objective | RoundLoss) -> dict[str, float]:
        """Keep what the round's loss leaves for the next; its own figures."""
        if isinstance(loss, Objective):
            return {}
        from raft_core.training.update import mean_over_processes

        self._carried = dict(loss.carried)
        figures = loss.figures()
        return mean_over_processes(figures, self._updater.device) if self._processes.count > 1 else figures

    def _update(
        self,
        policy: Policy,
        objective: Objective | RoundLoss,
        samples: Sequence[Sample],
        batch: Selection,
        path: tuple[int, int],
        lr: float,
    ) -> Step:
        """One step on this process's share of a batch; ``path`` is (round, step within it)."""
        import torch

        mine = self._processes.share(range(len(batch)))
        seeds = [seed_for(self._seed, "train", *path, position) for position in range(len(batch))]
        torch.manual_seed(seed_for(self._seed, "dropout", *path, self._processes.rank))

        def losses(one: Any, part: Sequence[int]) -> torch.Tensor:
            return one(policy, samples, batch.take(part), [seeds[position] for position in part])

        capabilities.prepare(objective, policy, samples, batch, seeds)
        divisor = capabilities.divisor(objective, samples, batch)
        passes = [partial(losses, one) for one in capabilities.passes(objective, policy, samples, batch.take(mine))]
        return self._updater.step(passes, mine, len(batch), divisor, lr)

    def _complain(self, step: Step, tally: Tally, where: str) -> None:
        """Say of a skipped step, and of items left out of one, that they were, once a round; stop when there are too many
        skipped steps in a row."""
        if step.taken and step.failed and tally.failed_items == step.failed:
            self._reporter.warn(
                f"{where}: the loss of {step.failed} of {self.batch_size} items is not finite; they are left out, and so are "
                "others like them"
            )
        if step.taken or step.excused:
            return
        found = f"{where}: the loss is {step.loss:g} and the gradient's norm {step.grad_norm:g}"
        if tally.faults == 1:
            self._reporter.warn(f"{found}; the step is skipped, and so are others like it")
        if tally.in_a_row >= MAX_SKIPPED_IN_A_ROW:
            other = "" if self.mixed_precision == "no" else ", or use trainer.mixed_precision 'no'"
            raise NotFiniteError(
                f"{found}, as in the {tally.in_a_row - 1} steps before: begin anew with a lower trainer.optimizer.lr "
                f"(now {self.optimizer.lr:g}){other}"
            )

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the policy's weights are their moving average, for sampling, evaluation and export; unchanged without one."""
        with self._updater.ema.applied() if self._updater.ema else contextlib.nullcontext():
            yield

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that a resumed run needs besides the weights: (tensors on the CPU, plain values that JSON takes)."""
        tensors, plain = self._updater.state_dict()
        held, follows = self._follower.state_dict()
        tensors |= {REFERENCE + name: value for name, value in held.items()}
        carried: dict[str, Any] = {"carried": self._carried} if self._carried else {}
        carried |= {"reference_follows": True} if follows else {}
        carried |= {"skipped_in_a_row": self._skipped_in_a_row} if self._skipped_in_a_row else {}
        return tensors, {"step": self._step, **carried, **plain}

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
        """Take up a state that ``state_dict`` gave; call after ``attach``.

        Raises:
            ModelError: a state of other parameters, or without the moving average that is now asked for.
        """
        held = {name.removeprefix(REFERENCE): value for name, value in tensors.items() if name.startswith(REFERENCE)}
        self._follower.load_state_dict(held, plain.get("reference_follows", False))
        self._updater.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(REFERENCE)}, plain)
        self._step = plain["step"]
        self._carried = dict(plain.get("carried", {}))  # most objectives leave nothing
        self._skipped_in_a_row = plain.get("skipped_in_a_row", 0)


class Tally:
    """What the steps of a round came to.

    Args:
        in_a_row: steps that were skipped, one after the other, when the round begins.
    """

    def __init__(self, in_a_row: int = 0) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.lr = 0.0
        self.skipped = 0
        self.faults = 0
        self.failed_items = 0
        self.in_a_row = in_a_row

    def add(self, step: Step, lr: float) -> None:
        """Take in a step; one that was skipped counts as a fault unless it is excused."""
        if step.taken:
            self.losses.append(step.loss)
            self.norms.append(step.grad_norm)
            self.lr = lr
            self.failed_items += step.failed
            self.in_a_row = 0
        else:
            self.skipped += 1
            self.faults += not step.excused
            self.in_a_row += not step.excused

    def metrics(self) -> dict[str, float]:
        """By the names of the metrics file; what no step has, is left out."""
        figures: dict[str, float] = {"train/steps": len(self.losses), "train/skipped_steps": self.skipped}
        figures |= {"train/failed_items": self.failed_items} if self.failed_items else {}
        if self.losses:
            figures |= {
                "train/loss": float(np.mean(self.losses)),
                "train/loss_first": self.losses[0],
                "train/loss_last": self.losses[-1],
                "train/grad_norm": float(np.mean(self.norms)),
                "train/lr": self.lr,
            }
        return figures


def batches(items: int, batch_size: int, steps: int, seed: int, rnd: int) -> Iterator[np.ndarray]:
    """``steps`` batches [batch_size] of positions in a selection: shuffled passes over it, one after the other, cut evenly.

    Each pass has every item once, so after n batches no item has been seen more than once more often than another.
    """
    waiting = np.empty(0, dtype=np.int64)
    epoch = 0
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, numpy_rng(seed, "order", rnd, epoch).permutation(items)])
            epoch += 1
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
