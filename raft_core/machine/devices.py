"""Which device to use and what it can do natively."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raft_core.errors import DeviceError, MachineLack

if TYPE_CHECKING:
    import torch


def resolve_device(name: str = "auto") -> torch.device:
    """The device of this name; ``"auto"`` is this process's accelerator, or the CPU where there is none.

    Raises:
        DeviceError: a name that torch does not know, or a device that this machine does not have.
    """
    import torch

    if name == "auto":
        from raft_core.machine.processes import joined

        return torch.device(joined().device or "cpu")  # knows which GPU belongs to this process
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"the device is {name!r}, which torch does not know: use 'auto', 'cpu', 'cuda' or 'cuda:0'"
        ) from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type, True)
    if not present:
        raise DeviceError(f"the device is {name!r}, but torch sees none on this machine: use 'auto' or 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"the device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA device(s), counted from 0")
    return device


def pick_dtype(name: str, device: torch.device, *, older: Literal["float16", "float32"] = "float16") -> torch.dtype:
    """The dtype of this name; ``auto`` = float32, on CUDA bfloat16 where it is native, else ``older``."""
    import torch

    named = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name != "auto":
        return named[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if native_bf16(device) else named[older]


def native_bf16(device: torch.device | str) -> bool:
    """Whether bfloat16 arithmetic runs in hardware there; emulated on a CPU it is hundreds of times slower than float32."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return _cpu_has_bf16()
    return True


@lru_cache
def _cpu_has_bf16() -> bool:
    """AVX512-BF16 or AMX on x86, the bf16 extension on Arm."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        return any(bool(has) for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    try:  # older torch, on Linux; elsewhere the safe answer is no
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(text.split()))


def dtype_mistakes(name: str, device: torch.device) -> list[str]:
    """Why a policy of this dtype cannot run there, in words."""
    if name == "bfloat16" and not native_bf16(device):
        slow = f"dtype is bfloat16, which this {device.type} only emulates, hundreds of times slower; use float32 or auto"
        return [MachineLack(slow)]
    if name == "float16" and device.type == "cpu":
        return [MachineLack("dtype is float16, which is for GPUs; use float32 or auto on this CPU")]
    return []
