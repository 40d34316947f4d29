"""Peak memory of a stretch of code: what the largest moment needed, not what is left at its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SAMPLE_EVERY_S = 0.02
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """What was measured; filled when the measured block ends.

    Attributes:
        bytes: peak on the accelerator where it was used (the largest of several), else ``host_bytes``.
        host_bytes: peak resident memory of this process.
        on_device: whether ``bytes`` is the accelerator's.
    """

    bytes: int = 0
    host_bytes: int = 0
    on_device: bool = False


class Gauge(Protocol):
    """Started at the beginning, read at the end."""

    def start(self) -> None: ...

    def stop(self) -> int:
        """Peak since ``start``, in bytes."""
        ...


class HighWaterMark:
    """The kernel's own mark of peak resident memory, put back to the present value at the start. Exact and free; Linux only."""

    @staticmethod
    def works() -> bool:
        """Whether the mark can be read and put back; containers may refuse either."""
        try:
            _CLEAR_REFS.write_text("5")
            return _kib("VmHWM") - _kib("VmRSS") < 64 * 1024  # a mark that was not put back stays far above
        except (OSError, KeyError):
            return False

    def start(self) -> None:
        _CLEAR_REFS.write_text("5")

    def stop(self) -> int:
        return _kib("VmHWM") * 1024


class Sampler:
    """Looks at the resident memory every 20 ms from a thread: peaks shorter than that are missed."""

    def __init__(self) -> None:
        self._peak = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._done.clear()
        self._peak = _resident()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peak-memory")
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_EVERY_S):
            self._peak = max(self._peak, _resident())

    def stop(self) -> int:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        return max(self._peak, _resident())


def host_gauge() -> Gauge:
    """The exact gauge where the kernel offers one, else the sampling one."""
    return HighWaterMark() if HighWaterMark.works() else Sampler()


@contextlib.contextmanager
def peak_memory(gauge: Callable[[], Gauge] = host_gauge) -> Iterator[Peak]:
    """Measure the block; the yielded ``Peak`` is filled when it ends, also when it ends by an exception."""
    import torch

    peak = Peak()
    host = gauge()
    host.start()
    if torch.cuda.is_initialized():  # before that nothing is allocated, and the call would fail
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    try:
        yield peak
    finally:
        peak.host_bytes = peak.bytes = host.stop()
        if torch.cuda.is_initialized():
            on_device = max(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
            peak.on_device = on_device > 0  # a policy on the CPU of a machine with a GPU uses none of it
            peak.bytes = on_device or peak.host_bytes


def _kib(key: str) -> int:
    """A value of /proc/self/status, KiB.

    Raises:
        KeyError: the kernel does not give it.
    """
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def _resident() -> int:
    import psutil

    return psutil.Process().memory_info().rss
