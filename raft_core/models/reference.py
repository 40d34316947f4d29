"""The frozen start of a policy that is trained in full, and the way from the start to what was trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch


class CopyReference:
    """The frozen start of full fine-tuning: the initial values, kept on the CPU and swapped in for as long as they are needed.

    Costs the trained weights' size in CPU memory, and their transfer at every use on a GPU.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]):
        self._parameters = dict(parameters)
        self._start = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        current = {name: parameter.data for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            parameter.data = self._start[name].to(parameter.device)
        try:
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.data = current[name]

    @contextlib.contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """Inside, the weights lie so far on the straight line from the start (0) to what was trained (1), or beyond it."""
        current = {name: parameter.data for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            parameter.data = torch.lerp(self._start[name].to(parameter.device), parameter.data, strength)
        try:
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.data = current[name]


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
