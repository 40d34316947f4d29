"""In which precision a model runs and by which attention; refuses what the hardware cannot do."""

from __future__ import annotations

import importlib.util

from raft_core.errors import DeviceError, MachineLack
from raft_core.machine.devices import dtype_mistakes, resolve_device
from raft_core.machine.devices import pick_dtype as pick_dtype  # for the policy, beside what the hardware cannot do


def mistakes(device: str, dtype: str, attention: str) -> list[str]:
    """What the hardware cannot do, in words."""
    try:
        resolved = resolve_device(device)
    except DeviceError as error:
        return [MachineLack(error)]
    kind, found = resolved.type, dtype_mistakes(dtype, resolved)
    if attention == "xformers":
        if kind != "cuda":
            only = f"memory.attention is xformers, which works on CUDA alone, and the device is {kind}; use sdpa"
            found.append(MachineLack(only))
        elif importlib.util.find_spec("xformers") is None:
            absent = "memory.attention is xformers, which is not installed: pip install 'raft-align[xformers]', or use sdpa"
            found.append(MachineLack(absent))
    return found
