"""Which networks are on the device: those that a phase needs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch


class Residency:
    """Moves the frozen weights of networks between the CPU and the device.

    What is trained stays on the device: an optimiser and a gradient scaler remember where they met it.

    Args:
        modules: networks by name.
        trained: parameters that stay.
        device: where networks work.
        offload: keep on a GPU only what is in use. On the CPU nothing ever moves.
    """

    def __init__(
        self, modules: Mapping[str, Any], trained: Iterable[torch.nn.Parameter], device: torch.device, *, offload: bool
    ):
        self._modules = dict(modules)
        self._device = device
        self._offload = offload and device.type == "cuda"
        self._held: list[frozenset[str]] = []
        trained = list(trained)
        self._staying = {id(parameter) for parameter in trained}
        send(trained, device)
        if not self._offload:
            self._move(self._modules, device)

    @contextlib.contextmanager
    def __call__(self, *names: str) -> Iterator[None]:
        """Inside, at least these networks are on the device; afterwards those that no outer context holds are not."""
        if not self._offload:
            yield
            return
        self._held.append(frozenset(names) & self._modules.keys())
        try:
            self._move(self._held[-1], self._device)
            yield
        finally:
            done = self._held.pop().difference(*self._held)
            self._move(done, torch.device("cpu"))
            if done:
                torch.cuda.empty_cache()

    def _move(self, names: Iterable[str], device: torch.device) -> None:
        for name in names:
            module = self._modules[name]
            send((t for t in itertools.chain(module.parameters(), module.buffers()) if id(t) not in self._staying), device)


def send(tensors: Iterable[torch.Tensor], device: torch.device) -> None:
    """Move tensors in place: whoever refers to them still does."""
    for tensor in tensors:
        tensor.data = tensor.data.to(device)
