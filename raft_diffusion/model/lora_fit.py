"""Whether a LoRA fits a model, told from the names and shapes of the model's weights, and the LoRA by the model's own names."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.model.lora_file import Factors

#: Width of the text that a U-Net's cross-attention reads → whose U-Net it is.
_FAMILIES: Mapping[int, str] = MappingProxyType({768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"})
_READS_TEXT = ".attn2.to_k"

Shape = tuple[int, ...]


def weight_shapes(modules: Mapping[str, Any]) -> dict[str, Shape]:
    """``network.module`` → shape of its weight, adapted or not."""
    return {
        f"{name}.{key.removesuffix('.weight').removesuffix('.base_layer')}": tuple(value.shape)
        for name, module in modules.items()
        for key, value in module.named_parameters()
        if key.endswith(".weight") and ".lora_" not in key
    }


def unet_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Those of a U-Net that is known by its configuration alone."""
    ensure_importable()
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return weight_shapes({"unet": UNet2DConditionModel.from_config(dict(config))})


def fitted(update: Mapping[str, Factors], shapes: Mapping[str, Shape]) -> dict[str, Factors]:
    """The same update by the model's own names of its layers.

    Args:
        update: ``network.module`` → factors, as a file names modules.
        shapes: of the model's weights.

    Raises:
        ModelError: the model lacks a layer, or has one of another shape.
    """
    found = {layer: name for layer in update if (name := _own_name(layer, shapes))}
    misfits = [layer for layer, name in found.items() if update[layer].shape != shapes[name]]
    if misfits:
        layer = next((layer for layer in misfits if _READS_TEXT in layer), misfits[0])
        raise ModelError(_misfit(layer, update[layer].shape, shapes[found[layer]]))
    if unknown := [layer for layer in update if layer not in found]:
        raise ModelError(
            f"the LoRA has {len(unknown)} layers that the model does not have, such as {unknown[0]}: it was made for another "
            "model"
        )
    return {name: update[layer] for layer, name in found.items()}


def _own_name(layer: str, shapes: Mapping[str, Shape]) -> str | None:
    """transformers has dropped ``text_model`` from the names of some text encoders, and kept it in others."""
    names = (layer, layer.replace(".text_model.", ".", 1), layer.replace(".", ".text_model.", 1))
    return next((name for name in names if name in shapes), None)


def _misfit(layer: str, its: Shape, models: Shape) -> str:
    families = [_FAMILIES.get(shape[1]) for shape in (its, models)] if _READS_TEXT in layer else [None]
    if all(families):
        return f"the LoRA was made for {families[0]}, but the model is {families[1]}"
    return f"the LoRA's {layer} is for a weight of shape {its}, but the model's has {models}: it was made for another model"
