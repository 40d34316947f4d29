"""The frozen start of a policy that is trained in full, and the way from the start to what was trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch


class CopyReference:
    """The frozen start of full fine-tuning: the initial values, kept on the CPU and swapped in for as long as they are needed.

    Costs the trained weights' size in CPU memory, and their transfer at every use on a GPU.

    Args:
        parameters: by name; looked up anew at each use, for others may have taken their places (see ``capabilities.Shards``).
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]):
        self._parameters = parameters
        self._start = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}

    def __call__(self) -> contextlib.AbstractContextManager[None]:
        return self._exchanged(lambda start, _: start)

    def at(self, strength: float) -> contextlib.AbstractContextManager[None]:
        """Inside, the weights lie so far on the straight line from the start (0) to what was trained (1), or beyond it."""
        return self._exchanged(lambda start, trained: torch.lerp(start, trained, strength))

    @contextlib.contextmanager
    def _exchanged(self, value: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """Inside, every parameter holds a value of its start and of what was trained."""
        parameters = dict(self._parameters)
        before: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items():
            before[name] = exchange(parameter, value(like(self._start[name], parameter), parameter.data))
        try:
            yield
        finally:
            for name, parameter in parameters.items():
                exchange(parameter, before[name])


def like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole value where the parameter is: on its device, and this process's part if it is spread."""
    if not hasattr(parameter, "full_tensor"):
        return value.to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    spread: Any = parameter
    return distribute_tensor(value.to(spread.device), spread.device_mesh, spread.placements, src_data_rank=None)


def exchange(parameter: torch.nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """Give a parameter another value; returns the one before.

    What is spread keeps its memory, which the gathering of weights reads; anything else is given another, which costs nothing.
    """
    if not hasattr(parameter, "full_tensor"):
        before, parameter.data = parameter.data, value
        return before
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.copy_(value)
    return before


@contextlib.contextmanager
def adapters_at(modules: Iterable[Any], strength: float) -> Iterator[None]:
    """Inside, the LoRA of these networks acts so strongly: 0 adds nothing, 1 is what was trained, more goes beyond it."""
    layers = [layer for module in modules for layer in module.modules() if hasattr(layer, "set_scale")]  # peft's LoRA layers
    try:
        for layer in layers:
            for adapter in layer.active_adapters:
                layer.set_scale(adapter, strength)
        yield
    finally:
        for layer in layers:
            for adapter in layer.active_adapters:
                layer.set_scale(adapter, 1.0)  # of alpha / rank: what it was, to the bit
