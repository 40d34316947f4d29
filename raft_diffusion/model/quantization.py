"""Frozen weights in fewer bits, by diffusers' and transformers' own means."""

from __future__ import annotations

import importlib.util
from typing import Any

from raft_core.errors import MachineLack
from raft_diffusion.model.pipelines import Description

_PACKAGES = {"nf4": "bitsandbytes", "int8": "bitsandbytes", "int8wo": "torchao"}


def mistakes(kind: str, device: str, lora: bool) -> list[str]:
    """Why weights cannot be quantised so, told before anything is loaded."""
    if kind == "none":
        return []
    found = []
    if not lora:
        found.append(f"memory.quantization is {kind}, but quantised weights cannot be trained: set lora")
    package = _PACKAGES[kind]
    if importlib.util.find_spec(package) is None:
        found.append(MachineLack(f"memory.quantization is {kind}, which needs {package}: pip install {package}"))
    if package == "bitsandbytes" and not device.startswith("cuda"):
        found.append(MachineLack(f"memory.quantization is {kind}, which works on CUDA alone, and the device is {device}"))
    return found


def quantization_configs(kind: str, description: Description, dtype: Any) -> dict[str, Any] | None:
    """Network → configuration for ``from_pretrained``, for the denoiser and the text encoders; None = as they are."""
    if kind == "none":
        return None
    import diffusers
    import transformers

    names = [description.denoiser, *description.text_encoders]
    libraries = {"diffusers": diffusers, "transformers": transformers}
    return {name: _config(kind, libraries[description.parts[name][0]], dtype) for name in names}


def _config(kind: str, library: Any, dtype: Any) -> Any:
    if kind == "nf4":
        return library.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    if kind == "int8":
        return library.BitsAndBytesConfig(load_in_8bit=True)
    from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports] - an extra

    return library.TorchAoConfig(Int8WeightOnlyConfig())
