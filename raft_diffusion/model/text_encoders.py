"""Text encoders of a pipeline: kept, or loaded for prompts that are new and dropped again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch


class TextEncoders:
    """Enters a context in which the text encoders are there and on the device.

    Args:
        pipe: the pipeline, whose attributes they are.
        loaders: name → loads it, onto the device. Used only where they are not kept.
        kept: enters a context in which the named networks are on the device; None = they are dropped after use.
        device: where they work.
    """

    def __init__(
        self,
        pipe: Any,
        loaders: Mapping[str, Callable[[], Any]],
        kept: Callable[..., AbstractContextManager[None]] | None,
        device: torch.device,
    ):
        self._pipe = pipe
        self._loaders = dict(loaders)
        self._kept = kept
        self._device = device
        self._held = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if self._kept is not None:
            with self._kept(*self._loaders):
                yield
            return
        with self.holding():
            for name, load in self._loaders.items():
                if getattr(self._pipe, name) is None:
                    setattr(self._pipe, name, load().eval())
            yield

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Inside, those that have been loaded stay; after the outermost of these contexts they are dropped."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._held == 0 and self._kept is None:
                self._drop()

    def _drop(self) -> None:
        there = [name for name in self._loaders if getattr(self._pipe, name) is not None]
        for name in there:
            setattr(self._pipe, name, None)
        if there and self._device.type == "cuda":
            torch.cuda.empty_cache()
