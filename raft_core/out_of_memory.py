"""Running out of memory, and making room."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error means that a smaller batch may fit."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, torch.OutOfMemoryError):
        return True
    # Allocators outside torch (cuBLAS, cuDNN, MPS) raise a plain RuntimeError; its text is all there is to go by.
    return isinstance(error, RuntimeError) and (should_reduce_batch_size(error) or "out of memory" in str(error).lower())


def make_room() -> None:
    """Collect garbage and hand cached device memory back.

    To be called outside the ``except``, whose traceback holds the activations.
    """
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
