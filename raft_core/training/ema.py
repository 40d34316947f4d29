"""An exponential moving average of the trainable weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Ema:
    """Shadow of some parameters: after each optimiser step, shadow ← d·shadow + (1 − d)·weight.

    d is ``decay``, but no more than (1 + t) / (10 + t) after t updates, or the first hundred steps would count for nothing.

    Args:
        decay: in (0, 1); 0.99 averages over about 100 steps.
        parameters: by stable names; the shadow starts as a copy.

    Source: Polyak and Juditsky 1992; the warm-up is TensorFlow's ``ExponentialMovingAverage(num_updates=…)``.
    """

    def __init__(self, decay: float, parameters: Mapping[str, torch.nn.Parameter]):
        self.decay = decay
        self.updates = 0
        self._parameters = dict(parameters)
        self.shadow = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def follow(self, parameters: Mapping[str, torch.nn.Parameter], shadow: Mapping[str, torch.Tensor]) -> None:
        """Go on with the same weights and the same average in other tensors."""
        self._parameters = dict(parameters)
        self.shadow = dict(shadow)

    def update(self) -> None:
        """Take the present weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, parameter in self._parameters.items():
            # The policy may have moved its weights to another device since.
            self.shadow[name] = self.shadow[name].to(parameter.device).lerp_(parameter.detach(), 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters hold the average; outside again, exactly what they held before."""
        before = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._write(self.shadow)
        try:
            yield
        finally:
            self._write(before)

    def _write(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.data.copy_(values[name])

    def load(self, shadow: Mapping[str, torch.Tensor], updates: int) -> None:
        """Take up a stored average."""
        self.updates = updates
        self.shadow = {name: shadow[name].detach().clone().to(p.device, p.dtype) for name, p in self._parameters.items()}
