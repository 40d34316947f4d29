"""The frozen start of a policy that is trained in full."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

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
