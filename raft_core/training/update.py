"""One optimiser step: gradients of a batch in micro-batches, shared out over processes, clipped, applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from raft_core.errors import DeviceError, ModelError
from raft_core.machine.out_of_memory import is_out_of_memory, make_room
from raft_core.protocols import Policy
from raft_core.training.ema import Ema
from raft_core.training.optim import Optimizer
from raft_core.training.replicas import Losses, Replicas, make_accelerator, whole
from raft_core.training.shards import ShardedWeights, sharding_asked

REMEDY = "resume with the settings that the run began with"


@dataclass(frozen=True)
class Step:
    """What a step came to.

    Attributes:
        loss: mean over the whole batch, over all processes.
        grad_norm: Euclidean, over all trainable parameters, before clipping.
        failed: items of the batch whose loss was not finite; the others alone make up loss and gradient.
        excused: it was skipped only because fp16 overflowed its loss scale, which has been lowered since.
    """

    loss: float
    grad_norm: float
    failed: int = 0
    excused: bool = False

    @property
    def taken(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Updater:
    """The trainable parameters and all that is kept to update them: moments, moving average, loss scale, micro-batch size.

    Args:
        policy: whose parameters are trained; float32.
        optimizer: settings.
        micro_batch_size: items per forward and backward pass at first.
        max_grad_norm: of a batch; None = no clipping.
        ema_decay: None = no moving average.
        mixed_precision: of the forward pass.
        warn: takes a line that a person should not miss.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: Optimizer,
        *,
        micro_batch_size: int,
        max_grad_norm: float | None,
        ema_decay: float | None,
        mixed_precision: str,
        warn: Callable[[str], None],
    ):
        self.micro_batch_size = micro_batch_size
        self._weights = trained_weights(policy, optimizer, mixed_precision)
        self.ema = Ema(ema_decay, self.parameters) if ema_decay else None
        self._max_grad_norm = math.inf if max_grad_norm is None else max_grad_norm
        self._warn = warn

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return self._weights.parameters

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @contextmanager
    def round(self) -> Iterator[None]:
        """Inside, steps can be taken: what the optimiser keeps is on the device, and out of the other phases' way outside."""
        with self._weights.round():
            if self.ema:
                shadow = {name: self._weights.part_of(name, value) for name, value in self.ema.shadow.items()}
                self.ema.follow(self.parameters, shadow)
            yield
            if self.ema:
                shadow = {name: whole(value).cpu() for name, value in self.ema.shadow.items()}
        if self.ema:
            self.ema.follow(self.parameters, shadow)

    def step(self, passes: Sequence[Losses], share: Sequence[int], batch_size: int, divisor: float, lr: float) -> Step:
        """Take one step, or none if the loss of every item or the gradient is not finite.

        Args:
            passes: losses of items of the batch, by position, which add up; differentiated one by one.
            share: positions in the batch that are this process's.
            batch_size: items over all processes.
            divisor: the batch's loss is the sum of its items' over all processes, divided by this.
            lr: learning rate of this step.
        """
        for group in self._weights.optimizer.param_groups:
            group["lr"] = lr
        with self._weights.accumulating():
            totals = self._backward(passes, share, divisor)
        self._weights.complete()
        loss, failed = self._weights.summed(totals).tolist()
        norm = self._weights.clip(self._max_grad_norm)
        step = Step(loss, norm, round(failed)) if failed < batch_size else Step(math.nan, math.nan, batch_size)
        scaler = self._weights.accelerator.scaler
        if step.taken:
            self._apply()
        elif scaler is not None:
            # fp16 overflows in the first steps, until the loss scale has come down; below 1 that is no excuse any more.
            step = replace(step, excused=math.isfinite(step.loss) and scaler.get_scale() > 1)
            scaler.update()
        self._weights.optimizer.zero_grad()
        return step

    def _apply(self) -> None:
        try:
            self._weights.optimizer.step()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                "the optimiser's moments do not fit into memory: train a LoRA of lower rank, or use optimizer.name 'adamw8bit'"
            ) from error
        if self.ema:
            self.ema.update()

    def _backward(self, passes: Sequence[Losses], share: Sequence[int], divisor: float) -> torch.Tensor:
        """Accumulate the gradients of this process's items, each exactly once; returns its part of the batch's loss, and how
        many items failed, [2].

        When memory runs out the whole share is taken again with micro-batches of half the size: how far the backward pass of
        the failed one came cannot be told.
        """
        while True:
            try:
                return self._accumulate(passes, share, divisor)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
                if self._weights.in_step:
                    raise DeviceError(
                        f"out of memory ({reason}) while the weights are spread over processes, which cannot cut a batch finer "
                        "one by one: use a smaller trainer.micro_batch_size, or gradient checkpointing"
                    ) from error
                self._halve(reason)
            self._weights.optimizer.zero_grad()
            make_room()

    def _accumulate(self, passes: Sequence[Losses], share: Sequence[int], divisor: float) -> torch.Tensor:
        total = torch.zeros((), device=self.device)
        failed: set[int] = set()
        for start in range(0, len(share), self.micro_batch_size):
            for losses in passes:
                part, weight = share[start : start + self.micro_batch_size], 1.0
                values = self._values(losses, part)  # [b]
                finite = values.detach().isfinite().tolist()
                if self._weights.any_failed(finite):
                    # Taken again without them: left in with a weight of 0, they would still make every gradient NaN.
                    failed |= {position for position, good in zip(part, finite, strict=True) if not good}
                    part, weight = self._weights.sound_part(part, finite)
                    if not part:
                        continue
                    values = self._values(losses, part) * weight
                loss = values.float().sum() / divisor
                self._weights.backward(loss)
                total += loss.detach()
        return torch.stack([total, total.new_tensor(len(failed))])

    def _values(self, losses: Losses, part: Sequence[int]) -> torch.Tensor:
        values = self._weights.losses(losses, part)
        if values.shape != (len(part),):
            raise ModelError(
                f"the objective returned shape {tuple(values.shape)} for {len(part)} items: "
                "it must return the loss of each, so that a batch can be cut and shared out"
            )
        return values

    def _halve(self, reason: str) -> None:
        if self.micro_batch_size == 1:
            raise DeviceError(
                f"one item does not fit into memory ({reason}): switch gradient checkpointing on, sample at a lower "
                "resolution or length, train a LoRA of lower rank, or use mixed precision"
            )
        self.micro_batch_size //= 2
        self._warn(f"out of memory ({reason}): micro-batches are now of {self.micro_batch_size}")

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """(tensors on the CPU, plain values that JSON takes)."""
        tensors: dict[str, torch.Tensor] = {}
        moments: dict[str, dict[str, Any]] = {}
        for name, state in self._weights.optimizer_state().items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer/{name}/{key}"] = value
                else:
                    moments.setdefault(name, {})[key] = value
        if self.ema:
            tensors |= {f"ema/{name}": value.detach().cpu().clone() for name, value in self.ema.shadow.items()}
        scaler = self._weights.accelerator.scaler
        plain = {
            "micro_batch_size": self.micro_batch_size,
            "optimizer": moments,
            "ema_updates": self.ema.updates if self.ema else 0,
            "scaler": {} if scaler is None else scaler.state_dict(),
        }
        return tensors, plain

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
        """Take up a state that ``state_dict`` gave.

        Raises:
            ModelError: a state of other parameters, or without the moving average that is now asked for.
        """
        states: dict[str, dict[str, Any]] = {name: dict(values) for name, values in plain["optimizer"].items()}
        shadow: dict[str, torch.Tensor] = {}
        for path, value in tensors.items():
            kind, _, rest = path.partition("/")
            if kind == "ema":
                shadow[rest] = value
            else:
                name, _, key = rest.rpartition("/")
                states.setdefault(name, {})[key] = value
        if unknown := sorted(set(states) - set(self.parameters)):
            raise ModelError(f"the trainer's state holds moments of {unknown[0]!r}, which this policy does not train: {REMEDY}")
        if self.ema and set(shadow) != set(self.parameters):
            raise ModelError(f"trainer.ema_decay is {self.ema.decay}, but the trainer's state holds no such average: {REMEDY}")
        self.micro_batch_size = plain["micro_batch_size"]
        self._weights.load_optimizer_state(states)
        if (scaler := self._weights.accelerator.scaler) is not None:
            scaler.load_state_dict(plain["scaler"])
        if self.ema:
            self.ema.load(shadow, plain["ema_updates"])


def trained_weights(policy: Policy, optimizer: Optimizer, mixed_precision: str) -> Replicas | ShardedWeights:
    """The policy's trainable parameters and their optimiser, as accelerate is configured.

    Raises:
        ModelError: parameters that cannot be trained.
        ConfigError: accelerate is configured for what this policy cannot do.
    """
    parameters, accelerator = checked_parameters(policy), make_accelerator(mixed_precision)
    if accelerator.is_fsdp2 or (sharding_asked() and accelerator.num_processes > 1):
        return ShardedWeights(policy, parameters, optimizer.build, accelerator)
    return Replicas(parameters, optimizer.build, accelerator)


def mean_over_processes(figures: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The same figures as their means over all processes, each of which has all of them."""
    from accelerate.utils import reduce

    values: Any = reduce(torch.tensor(list(figures.values()), device=device), reduction="mean")
    return dict(zip(figures, values.tolist(), strict=True))


def checked_parameters(policy: Policy) -> dict[str, torch.nn.Parameter]:
    """The policy's trainable parameters by name.

    Raises:
        ModelError: none, one that is frozen, or one that is not float32.
    """
    parameters = dict(policy.trainable())
    if not parameters:
        raise ModelError("the policy has no trainable parameters: switch its LoRA on, or train it in full")
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            raise ModelError(
                f"the trainable parameter {name!r} is frozen: call requires_grad_(True) on it in the policy's load()"
            )
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"the trainable parameter {name!r} is {parameter.dtype}, in which steps of a usual learning rate are rounded "
                "away: keep trainable parameters in float32 and use trainer.mixed_precision for speed"
            )
    return parameters
