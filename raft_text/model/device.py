"""In which precision a model runs, and what the hardware cannot do."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from raft_core.errors import DeviceError, MachineLack
from raft_core.machine import devices
from raft_core.machine.devices import dtype_mistakes, resolve_device
from raft_text.options import Lora, Memory, Sampling

if TYPE_CHECKING:
    import torch


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of this name for a policy, whose losses are not scaled: ``auto`` is never float16."""
    return devices.pick_dtype(name, device, older="float32")


def mistakes(device: str, dtype: str, lora: Lora | None, sampling: Sampling, memory: Memory) -> list[str]:
    """What the hardware cannot do, and packages that are missing for it, in words."""
    try:
        resolved = resolve_device(device)
    except DeviceError as error:
        return [MachineLack(error)]
    kind, found = resolved.type, dtype_mistakes(dtype, resolved)
    found += quantize_mistakes("memory.quantize", memory.quantize, kind)
    if memory.quantize and lora is None:
        found.append(f"memory.quantize is {memory.quantize}, but quantised weights cannot be trained in full: set lora")
    if memory.attention == "flash_attention_2":
        found += _extra(kind, "memory.attention", memory.attention, "flash-attn", "flash_attn")
    if sampling.engine == "vllm":
        found += _extra(kind, "sampling.engine", "vllm", "vllm")
    if sampling.engine != "transformers" and lora is None:
        found.append("sampling.engine is vllm, which takes new weights as a LoRA only: set lora, or use transformers")
    return found


def quantize_mistakes(setting: str, value: str | None, kind: str) -> list[str]:
    """Why weights cannot be quantised on this kind of device, in words."""
    return _extra(kind, setting, value, "bitsandbytes")


def _extra(kind: str, setting: str, value: str | None, package: str, module: str | None = None) -> list[str]:
    """Why a setting that needs CUDA and an optional package cannot be had."""
    if value is None:
        return []
    if kind != "cuda":
        only = f"{setting} is {value}, which works on CUDA alone, and the device is {kind}: leave it at its default"
        return [MachineLack(only)]
    if importlib.util.find_spec(module or package) is None:
        named = f"'raft-align[{package}]'" if module is None else package
        return [MachineLack(f"{setting} is {value}, which needs the package {package}: pip install {named}")]
    return []


def quantization(name: str | None) -> Any:
    """How transformers is told of quantised base weights; None = none."""
    if name is None:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
