"""The weights of a network whose adapters are folded into them, as plain tensors: what a program without adapters loads."""

from __future__ import annotations

from typing import Any

import torch


def plain_state(network: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The network's tensors by the names that they have without adapters, on the CPU.

    Args:
        network: with its adapters folded. Folding sums in float32, and what it sums is rounded here, once.
        dtype: of floating-point tensors in the result.
    """
    found: dict[str, torch.Tensor] = {}
    for name, value in network.state_dict().items():
        if ".lora_" not in name:
            value = value.detach().to("cpu")
            found[name.replace(".base_layer", "")] = value.to(dtype) if value.is_floating_point() else value
    return found
