"""Running out of memory, and making room."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from raft_core.errors import DeviceError
from raft_core.protocols import Phase

# Phase → what was being done, and what would make it fit.
REMEDIES: dict[Phase, tuple[str, str]] = {
    "sample": ("sampling", "use a smaller policy.sampling.batch_size, or a lower resolution or shorter length"),
    "render": (
        "rendering and scoring",
        "use a smaller policy.sampling.batch_size or a smaller batch_size of the rewards and judges, or put these on the CPU "
        "(device: cpu)",
    ),
    "train": (
        "training",
        "use a smaller trainer.micro_batch_size or policy.sampling.batch_size, mixed precision, or a LoRA of lower rank",
    ),
}
RESUME = "a run goes on with a changed setting by `raft resume RUN --SETTING VALUE --force`"


@contextlib.contextmanager
def in_words(phase: Phase) -> Iterator[None]:
    """Turn running out of memory in this phase into an error with its remedy.

    Raises:
        DeviceError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        doing, remedy = REMEDIES[phase]
        reason = next(iter(str(error).splitlines()), "no room")
        raise DeviceError(f"out of memory while {doing} ({reason}): {remedy}; {RESUME}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error means that a smaller batch may fit."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # Allocators outside torch (cuBLAS, cuDNN, MPS) raise a plain RuntimeError; its text is all there is to go by.
    return isinstance(error, RuntimeError) and (should_reduce_batch_size(error) or "out of memory" in str(error).lower())


def make_room() -> None:
    """Collect garbage and hand cached device memory back.

    To be called outside the ``except``, whose traceback holds the activations.
    """
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
