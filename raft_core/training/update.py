"""One optimiser step: gradients of a batch in micro-batches, shared out over processes, clipped, applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from raft_core.errors import DeviceError, ModelError
from raft_core.machine.out_of_memory import is_out_of_memory, make_room
from raft_core.machine.processes import Processes
from raft_core.protocols import Policy
from raft_core.training.ema import Ema
from raft_core.training.optim import Optimizer

REMEDY = "resume with the settings that the run began with"
AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}

Losses = Callable[[Sequence[int]], torch.Tensor]  # places in this process's share of a batch → [b] loss of each item


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
        parameters: float32, by stable names.
        optimizer: settings.
        processes: that share each batch.
        micro_batch_size: items per forward and backward pass at first.
        max_grad_norm: of a batch; None = no clipping.
        ema_decay: None = no moving average.
        mixed_precision: of the forward pass.
        warn: takes a line that a person should not miss.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: Optimizer,
        processes: Processes,
        *,
        micro_batch_size: int,
        max_grad_norm: float | None,
        ema_decay: float | None,
        mixed_precision: str,
        warn: Callable[[str], None],
    ):
        self.parameters = dict(parameters)
        self.micro_batch_size = micro_batch_size
        self.ema = Ema(ema_decay, self.parameters) if ema_decay else None
        self._processes = processes
        self._max_grad_norm = max_grad_norm
        self._dtype = AUTOCAST[mixed_precision]
        self._warn = warn
        self._optimizer = optimizer.build(list(self.parameters.values()))
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=mixed_precision == "fp16")

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    def step(self, passes: Sequence[Losses], share: int, batch_size: int, divisor: float, lr: float) -> Step:
        """Take one step, or none if the loss of every item or the gradient is not finite.

        Args:
            passes: losses of the ``share`` items that this process has of the batch, which add up; differentiated one by one.
            batch_size: items over all processes.
            divisor: the batch's loss is the sum of its items' over all processes, divided by this.
            lr: learning rate of this step.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        totals = self._backward(passes, share, divisor)
        grads = [grad_or_zero(parameter) for parameter in self.parameters.values()]
        if self._processes.count > 1:
            totals = sum_over_processes(totals, grads)
        loss, failed = totals.tolist()
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.get_total_norm(grads)
        step = Step(loss, float(norm), round(failed)) if failed < batch_size else Step(math.nan, math.nan, batch_size)
        if step.taken:
            if self._max_grad_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self._max_grad_norm, norm)
            self._apply()
        elif math.isfinite(step.loss) and self._scaler.is_enabled():
            # fp16 overflows in the first steps, until the loss scale has come down; below 1 that is no excuse any more.
            step = replace(step, excused=self._scaler.get_scale() > 1)
        self._scaler.update()
        self._optimizer.zero_grad()
        return step

    def _apply(self) -> None:
        try:
            self._scaler.step(self._optimizer)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                "the optimiser's moments do not fit into memory: train a LoRA of lower rank, or use optimizer.name 'adamw8bit'"
            ) from error
        if self.ema:
            self.ema.update()

    def _backward(self, passes: Sequence[Losses], share: int, divisor: float) -> torch.Tensor:
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
                self._halve(str(error).splitlines()[0])
            self._optimizer.zero_grad()
            make_room()

    def _accumulate(self, passes: Sequence[Losses], share: int, divisor: float) -> torch.Tensor:
        total = torch.zeros((), device=self.device)
        failed: set[int] = set()
        for start in range(0, share, self.micro_batch_size):
            for losses in passes:
                part = range(start, min(start + self.micro_batch_size, share))
                values = self._values(losses, part)  # [b]
                finite = values.detach().isfinite().tolist()
                if not all(finite):
                    # Taken again without them: left in with a weight of 0, they would still make every gradient NaN.
                    failed |= {place for place, good in zip(part, finite, strict=True) if not good}
                    part = [place for place, good in zip(part, finite, strict=True) if good]
                    if not part:
                        continue
                    values = self._values(losses, part)
                loss = values.float().sum() / divisor
                self._scaler.scale(loss).backward()
                total += loss.detach()
        return torch.stack([total, total.new_tensor(len(failed))])

    def _values(self, losses: Losses, part: Sequence[int]) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            values = losses(part)
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

    def move_moments(self, device: torch.device | str) -> None:
        """Move what the optimiser keeps: to the weights before training, out of the other phases' way after it."""
        for parameter in self.parameters.values():
            state = self._optimizer.state.get(parameter, {})
            for key, value in state.items():
                if getattr(value, "ndim", 0):  # AdamW keeps its 0-d step count on the CPU on purpose
                    state[key] = value.to(device)
        if self.ema:
            self.ema.shadow = {name: value.to(device) for name, value in self.ema.shadow.items()}

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """(tensors on the CPU, plain values that JSON takes)."""
        tensors: dict[str, torch.Tensor] = {}
        moments: dict[str, dict[str, Any]] = {}
        for name, parameter in self.parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer/{name}/{key}"] = value.detach().cpu().clone()
                else:
                    moments.setdefault(name, {})[key] = value
        if self.ema:
            tensors |= {f"ema/{name}": value.detach().cpu().clone() for name, value in self.ema.shadow.items()}
        plain = {
            "micro_batch_size": self.micro_batch_size,
            "optimizer": moments,
            "ema_updates": self.ema.updates if self.ema else 0,
            "scaler": self._scaler.state_dict(),
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
        indexed = {i: states[name] for i, name in enumerate(self.parameters) if name in states}
        self._optimizer.load_state_dict({"state": indexed, "param_groups": self._optimizer.state_dict()["param_groups"]})
        self._scaler.load_state_dict(plain["scaler"])
        if self.ema:
            self.ema.load(shadow, plain["ema_updates"])


def grad_or_zero(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The gradient, made 0 where no item touched the parameter: the optimiser then does the same on every process."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def sum_over_processes(totals: torch.Tensor, grads: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum gradients in place, and the totals [n], over all processes in one message; the same result on each of them."""
    from accelerate.utils import reduce

    message = torch.cat([totals, *[grad.reshape(-1) for grad in grads]])
    summed: Any = reduce(message, reduction="sum")
    for grad, part in zip(grads, summed[len(totals) :].split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))
    return summed[: len(totals)]


def mean_over_processes(figures: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The same figures as their means over all processes, each of which has all of them."""
    from accelerate.utils import reduce

    values: Any = reduce(torch.tensor(list(figures.values()), device=device), reduction="mean")
    return dict(zip(figures, values.tolist(), strict=True))


def share_first_weights(parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Give every process the first one's weights, in place."""
    from accelerate.utils import broadcast

    for parameter in parameters.values():
        sent: Any = broadcast(parameter.data)
        parameter.data.copy_(sent)


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
