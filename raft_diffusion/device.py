"""In which precision a model runs and by which attention; refuses what the hardware cannot do."""

from __future__ import annotations

import importlib.util

from raft_core.devices import native_bf16, resolve_device
from raft_core.devices import pick_dtype as pick_dtype  # for the policy, beside what the hardware cannot do
from raft_core.errors import DeviceError


def mistakes(device: str, dtype: str, attention: str) -> list[str]:
    """What the hardware cannot do, in words."""
    try:
        resolved = resolve_device(device)
    except DeviceError as error:
        return [str(error)]
    kind, found = resolved.type, []
    if dtype == "bfloat16" and not native_bf16(resolved):
        found.append(f"dtype is bfloat16, which this {kind} only emulates, hundreds of times slower; use float32 or auto")
    if kind == "cpu" and dtype == "float16":
        found.append("dtype is float16, which is for GPUs; use float32 or auto on this CPU")
    if attention == "xformers":
        if kind != "cuda":
            found.append(f"memory.attention is xformers, which works on CUDA alone, and the device is {kind}; use sdpa")
        elif importlib.util.find_spec("xformers") is None:
            found.append(
                "memory.attention is xformers, which is not installed: pip install 'raft-align[xformers]', or use sdpa"
            )
    return found
