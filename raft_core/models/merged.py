"""A network's weights with what its adapters add, as plain tensors: what a program without adapters loads."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def merged_state(network: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The network's tensors by their plain names, on the CPU, adapters added as they act now: switched off they add nothing.

    Half precision would round a young adapter's update away, so the sum is made in float32 and rounded once.

    Args:
        network: a module with adapters of peft in some of its layers, or without any.
        dtype: of floating-point tensors in the result.
    """
    layers = {name: layer for name, layer in network.named_modules() if hasattr(layer, "get_delta_weight")}
    acting = {name: layer for name, layer in layers.items() if not layer.disable_adapters}
    found: dict[str, torch.Tensor] = {}
    for name, value in network.state_dict().items():
        layer, _, leaf = name.rpartition(".base_layer.")
        if any(f".{part}." in f".{name}" for part in ("lora_A", "lora_B")):
            continue
        if layer in acting and leaf == "weight":
            value = value.float() + acting[layer].get_delta_weight(acting[layer].active_adapters[0]).float()
        plain = name.replace(".base_layer.", ".")
        found[plain] = (value.to(dtype) if value.is_floating_point() else value).cpu()
    return found
