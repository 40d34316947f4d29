"""How the world spells a LoRA: peft in memory, diffusers on disk, kohya for ComfyUI and A1111; and back.

An adapted layer has a down matrix [r, in, …] and an up matrix [out, r, …]; its update is alpha / r · up · down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from raft_core.errors import ModelError
from raft_diffusion.options import ATTENTION, CONVOLUTIONS, Lora

_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"
_KOHYA_NETWORKS = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
#: The other layers of a transformer block, which many LoRAs of the wild adapt too.
TRANSFORMER = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
_DOWN_SPELLINGS = (_DOWN, ".lora_A.weight", ".lora.down.weight", ".lora_linear_layer.down.weight", ".lora_down.weight")


@dataclass(frozen=True)
class Factors:
    """One layer's update: alpha / rank · up · down; ``alpha`` None means the rank."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank


def layers(parameters: Iterable[str]) -> list[str]:
    """Adapted layers, ``network.module``, among names of trained parameters."""
    return [name.removesuffix(_DOWN) for name in parameters if name.endswith(_DOWN)]


def factors(parameters: Mapping[str, torch.Tensor], alpha: float) -> dict[str, Factors]:
    """Layer → its factors on the CPU, from parameters named as in memory."""
    return {
        layer: Factors(parameters[layer + _DOWN].detach().cpu(), parameters[layer + _UP].detach().cpu(), alpha)
        for layer in layers(parameters)
    }


def public_name(layer: str) -> str:
    """The layer as files name it: text encoders with ``text_model``, which newer versions of transformers have dropped."""
    network, module = layer.split(".", 1)
    prefix = "" if network == "unet" or module.startswith("text_model.") else "text_model."
    return f"{network}.{prefix}{module}"


def kohya_name(layer: str, xl: bool) -> str:
    """``unet.mid_block.attn`` as ``lora_unet_mid_block_attn``. A model with one text encoder calls it te, SDXL te1 and te2."""
    network, module = public_name(layer).split(".", 1)
    prefix = "lora_te" if network == "text_encoder" and not xl else _KOHYA_NETWORKS[network]
    return f"{prefix}_{module.replace('.', '_')}"


def to_diffusers(update: Mapping[str, Factors]) -> dict[str, torch.Tensor]:
    """What ``pipe.load_lora_weights`` takes. This spelling knows no alpha, so it is multiplied into the up matrix."""
    tensors = {}
    for layer, part in update.items():
        tensors[public_name(layer) + ".lora_A.weight"] = part.down.contiguous()
        tensors[public_name(layer) + ".lora_B.weight"] = (part.up * part.scale).contiguous()
    return tensors


def to_kohya(update: Mapping[str, Factors], *, xl: bool) -> dict[str, torch.Tensor]:
    """What ComfyUI, A1111 and their kin take."""
    tensors = {}
    for layer, part in update.items():
        name = kohya_name(layer, xl)
        tensors[name + ".lora_down.weight"] = part.down.contiguous()
        tensors[name + ".lora_up.weight"] = part.up.contiguous()
        tensors[name + ".alpha"] = torch.tensor(float(part.rank if part.alpha is None else part.alpha))
    return tensors


def read(tensors: Mapping[str, torch.Tensor]) -> dict[str, Factors]:
    """Layers as the file spells them → factors, from a file of any of the spellings.

    Raises:
        ModelError: nothing in it is a LoRA, a down matrix has no up matrix, or there is more in it than these.
    """
    found: dict[str, Factors] = {}
    used: set[str] = set()
    for key, down in tensors.items():
        suffix = next((suffix for suffix in _DOWN_SPELLINGS if key.endswith(suffix)), None)
        if suffix is None:
            continue
        layer = key.removesuffix(suffix)
        up_key, alpha_key = layer + suffix.replace("lora_A", "lora_B").replace("down", "up"), layer + ".alpha"
        if up_key not in tensors:
            raise ModelError(f"the LoRA has {key}, but no up matrix beside it: the file is damaged")
        found[layer] = _factors(layer, down, tensors[up_key], tensors.get(alpha_key))
        used |= {key, up_key, alpha_key}
    if not found:
        raise ModelError("no LoRA in this file: none of its keys ends in lora_A, lora.down or lora_down")
    if unused := sorted(tensors.keys() - used):  # DoRA's magnitudes, the middle matrix of a LoCon, biases, embeddings …
        raise ModelError(
            f"the LoRA has {len(unused)} tensors besides its down and up matrices, such as {unused[0]}: it is of another kind, "
            "and without them its pictures would be others"
        )
    return found


def _factors(layer: str, down: torch.Tensor, up: torch.Tensor, alpha: torch.Tensor | None) -> Factors:
    if down.ndim < 2 or up.ndim < 2 or up.shape[1] != down.shape[0] or (alpha is not None and alpha.numel() != 1):
        raise ModelError(f"the LoRA's matrices of {layer} do not fit each other: the file is damaged")
    return Factors(down, up, None if alpha is None else float(alpha))


def spellings(layer: str) -> list[str]:
    """All names by which files call a layer."""
    public = public_name(layer)
    return [public, layer, kohya_name(layer, xl=True), kohya_name(layer, xl=False)]


def into_parameters(
    update: Mapping[str, Factors], parameters: Mapping[str, torch.Tensor], scale: float
) -> dict[str, torch.Tensor]:
    """Values for trained parameters by name, whatever the file's spelling, for adapters of this scale.

    Raises:
        ModelError: the file adapts other layers than the policy, or with another rank.
    """
    left = dict(update)
    values: dict[str, torch.Tensor] = {}
    missing = []
    for layer in layers(parameters):
        name = next((name for name in spellings(layer) if name in left), None)
        if name is None:
            missing.append(layer)
            continue
        part = left.pop(name)
        values[layer + _DOWN] = part.down
        values[layer + _UP] = part.up * (part.scale / scale)
    if missing or left:
        raise ModelError(_mismatch(missing, list(left)))
    for name, value in values.items():
        if value.shape != parameters[name].shape:
            raise ModelError(
                f"the LoRA's {name} has shape {tuple(value.shape)}, the policy's {tuple(parameters[name].shape)}: "
                "set policy.lora.rank to the file's rank, and policy.model to the model it was made for"
            )
    return values


def _mismatch(missing: list[str], unknown: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"it lacks {len(missing)} layers that the policy adapts, such as {missing[0]}")
    if unknown:
        parts.append(f"it has {len(unknown)} layers that the policy does not adapt, such as {unknown[0]}")
    return f"the LoRA does not fit: {'; '.join(parts)}; set policy.lora (targets, conv, text_encoder) as it was made"


def infer(update: Mapping[str, Factors]) -> Lora:
    """The settings under which a policy can take this LoRA.

    Raises:
        ModelError: its layers have several ranks, which a policy has not.
    """
    ranks = {part.rank for part in update.values()}
    if len(ranks) > 1:
        raise ModelError(
            f"the LoRA's layers have different ranks ({', '.join(map(str, sorted(ranks)))}); one rank can be loaded"
        )
    alphas = {part.alpha for part in update.values()}
    unet = [name for name in update if name.startswith(("unet.", "lora_unet_"))]
    conv = any(_ends(name, target) for name in unet for target in CONVOLUTIONS)
    targets = tuple(target for target in (*ATTENTION, *TRANSFORMER) if any(_ends(name, target) for name in unet))
    return Lora(
        rank=ranks.pop(),
        alpha=alphas.pop() if len(alphas) == 1 else None,
        targets=targets,
        conv=conv,
        text_encoder=len(unet) < len(update),
    )


def _ends(name: str, target: str) -> bool:
    return name.endswith(("." + target, "_" + target.replace(".", "_")))
