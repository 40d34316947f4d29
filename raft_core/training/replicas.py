"""Every process has all weights: accelerate's plain and data-parallel (DDP) training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from raft_core.errors import ConfigError, DeviceError
from raft_core.machine.processes import joined

if TYPE_CHECKING:
    from accelerate import Accelerator

Losses = Callable[[Sequence[int]], torch.Tensor]  # positions in a batch → [b] loss of each item


def make_accelerator(mixed_precision: str) -> Accelerator:
    """An accelerator of this precision; how processes share the work is accelerate's own configuration.

    Micro-batches are counted by the updater, so accelerate's count stays 1 whatever the launcher says.

    Raises:
        ConfigError: DeepSpeed.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, GradientAccumulationPlugin

    joined()
    if AcceleratorState._shared_state and AcceleratorState._shared_state["_mixed_precision"] != mixed_precision:
        AcceleratorState._reset_state()  # a process has one precision at a time; the trainer before is told, see ``Replicas``
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        device_placement=False,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ConfigError(
            "accelerate is configured for DeepSpeed, which takes its steps within the backward pass, so that one without a "
            "finite loss could not be skipped: use FSDP, which spreads the same over processes "
            "(accelerate launch --use_fsdp --fsdp_version 2)"
        )
    if mixed_precision == "fp16" and accelerator.scaler is None:  # accelerate scales on accelerators alone
        accelerator.scaler = torch.amp.GradScaler(accelerator.device.type)
        accelerator.native_amp = True
    return accelerator


class TrainedWeights(torch.nn.Module):
    """The trained parameters as a module whose forward pass computes losses.

    A policy has several networks, and a loss runs them as it likes; hooks on gradients (DDP's) and on precision (accelerate's)
    want one module with a forward pass.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]):
        super().__init__()
        self.weights = torch.nn.ParameterList(parameters)

    def forward(self, losses: Losses | None = None, part: Sequence[int] = ()) -> torch.Tensor:
        """[b] losses of a part of a batch; without any, a 0 that every parameter has a part in."""
        if losses is None:
            return torch.stack([weight.sum() * 0 for weight in self.weights]).sum()
        return losses(part)


class Replicas:
    """The trained parameters where every process has all of them, and the optimiser.

    Micro-batches are added up without a word to the other processes; then one pass that adds nothing has DDP share the sums. So
    a process may cut its share finer than another (out of memory) or have nothing to add (all of its items failed).

    Args:
        parameters: float32, by stable names; all processes are given the first one's values.
        build: the optimiser over parameters.
        accelerator: of this run.

    Attributes:
        in_step: whether processes have to make the same passes at the same time.
        optimizer: as accelerate wraps it.
    """

    in_step = False

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        build: Callable[[Sequence[torch.nn.Parameter]], torch.optim.Optimizer],
        accelerator: Accelerator,
    ):
        self._parameters = dict(parameters)
        self.accelerator = accelerator
        self._precision = accelerator.mixed_precision
        values = list(self._parameters.values())
        if self._precision != "no" and accelerator.device.type != values[0].device.type:
            raise ConfigError(
                f"trainer.mixed_precision is {self._precision!r} for {accelerator.device.type}, but the policy is on "
                f"{values[0].device.type}: leave policy.device at auto, or use mixed_precision 'no'"
            )
        self._module, self.optimizer = accelerator.prepare(TrainedWeights(values), build(values))

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return self._parameters

    @contextlib.contextmanager
    def round(self) -> Iterator[None]:
        """Inside, a round is trained on: what the optimiser keeps is where the weights are; outside it is on the CPU."""
        self._move_moments(next(iter(self._parameters.values())).device)
        try:
            yield
        finally:
            self._move_moments(torch.device("cpu"))

    def _move_moments(self, device: torch.device) -> None:
        for parameter in self._parameters.values():
            state = self.optimizer.state.get(parameter, {})
            for key, value in state.items():
                if getattr(value, "ndim", 0):  # AdamW keeps its 0-d step count on the CPU on purpose
                    state[key] = value.to(device)

    @contextlib.contextmanager
    def accumulating(self) -> Iterator[None]:
        """Inside, gradients are added up by each process alone.

        Raises:
            DeviceError: another trainer has changed the precision of the whole process since.
        """
        if self.accelerator.mixed_precision != self._precision:
            raise DeviceError(
                f"this trainer's mixed_precision is {self._precision!r}, but one with {self.accelerator.mixed_precision!r} has "
                "been attached in this process since: train one after the other"
            )
        with self.accelerator.no_sync(self._module):
            yield

    def losses(self, losses: Losses, part: Sequence[int]) -> torch.Tensor:
        """[b] losses of these positions, in the run's precision."""
        return self._module(losses, part)

    def sound_part(self, part: Sequence[int], finite: Sequence[bool]) -> tuple[Sequence[int], float]:
        """(positions to take again in place of these, their weight), for some losses were not finite."""
        return [position for position, good in zip(part, finite, strict=True) if good], 1.0

    def any_failed(self, finite: Sequence[bool]) -> bool:
        return not all(finite)

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradient; the gradients of all processes are averaged later, and should be summed."""
        self.accelerator.backward(loss * self.accelerator.num_processes)

    def complete(self) -> None:
        """Every process has the sum of all gradients, 0 where no item touched a parameter."""
        if self.accelerator.num_processes > 1:
            self.accelerator.backward(self._module())
        for parameter in self._parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def part_of(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A tensor that belongs to a parameter, where that is."""
        return value.to(self._parameters[name].device)

    def summed(self, totals: torch.Tensor) -> torch.Tensor:
        """The sum of [n] figures over processes."""
        found: Any = self.accelerator.reduce(totals, reduction="sum")
        return found

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to this norm; the norm before, of the true gradient and not the one scaled for fp16."""
        norm: Any = self.accelerator.clip_grad_norm_(list(self._parameters.values()), max_norm)
        return float(norm)

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """What the optimiser keeps, by parameter, tensors on the CPU."""
        kept: dict[str, dict[str, Any]] = {}
        for name, parameter in self._parameters.items():
            state = self.optimizer.state.get(parameter)
            if state:
                kept[name] = {key: _copied(value) for key, value in state.items()}
        return kept

    def load_optimizer_state(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        indexed = {index: dict(kept[name]) for index, name in enumerate(self._parameters) if name in kept}
        self.optimizer.load_state_dict({"state": indexed, "param_groups": self.optimizer.state_dict()["param_groups"]})


def whole(value: Any) -> torch.Tensor:
    """A tensor of which every process may have a part; all of them have to ask."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _copied(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
