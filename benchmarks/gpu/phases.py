"""Seconds and peak memory by phase, on an accelerator and on a CPU."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from raft_core.machine.peak_memory import peak_memory

PHASES = ("sample", "decode", "score", "train")


@dataclass
class Phases:
    """What the phases of one round took.

    Attributes:
        device: whose work is waited for.
        seconds: by phase.
        peak_bytes: by phase; of the accelerator where there is one.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        with peak_memory() as peak:
            wait(self.device)
            start = time.perf_counter()
            yield
            wait(self.device)
            self.seconds[name] = time.perf_counter() - start
        self.peak_bytes[name] = peak.bytes

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    def plain(self) -> dict[str, dict[str, float]]:
        return {"seconds": dict(self.seconds), "peak_bytes": dict(self.peak_bytes)}


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def give_back() -> None:
    """Memory of what is not referred to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
