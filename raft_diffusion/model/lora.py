"""What is trained: adapters or whole networks, by stable names; and the frozen start beside it."""

from __future__ import annotations

import collections
import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from raft_core.errors import ModelError, nearest
from raft_core.models.reference import adapters_at
from raft_diffusion.model.lora_file import Factors
from raft_diffusion.options import ATTENTION, Lora

#: Attention of a CLIP text encoder, in the names of transformers.
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
ADAPTER = "default"
DOWN, UP = f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight"


def add_adapters(modules: Mapping[str, Any], lora: Lora) -> None:
    """Put adapters into ``unet``, and into the text encoders if asked. The values depend on ``lora.seed`` alone.

    Args:
        modules: a pipeline's networks by name: unet, text_encoder, text_encoder_2.
        lora: how.

    Raises:
        ModelError: a target that no layer of the U-Net is called by.
    """
    from peft import LoraConfig

    _check_targets(modules["unet"], lora)
    for name, module in modules.items():
        module.requires_grad_(False)
        if name != "unet" and not lora.text_encoder:
            continue
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.effective_alpha,  # pyright: ignore[reportArgumentType] - peft divides by it; a float works
            target_modules=lora.unet_targets if name == "unet" else list(TEXT_TARGETS),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(lora.seed)
            module.add_adapter(config)
    train_in_float32(modules)


def put_adapters(modules: Mapping[str, Any], update: Mapping[str, Factors]) -> None:
    """Put the adapters of a LoRA into the networks: its layers, ranks and alphas, with its values.

    Args:
        modules: a pipeline's networks by name.
        update: ``network.module`` → factors, as ``fitted`` gives them.
    """
    from peft import LoraConfig

    for name, module in modules.items():
        module.requires_grad_(False)
        own = {layer.removeprefix(f"{name}."): part for layer, part in update.items() if layer.startswith(f"{name}.")}
        if not own:
            continue
        rank = collections.Counter(part.rank for part in own.values()).most_common(1)[0][0]
        alpha = collections.Counter(part.effective_alpha for part in own.values()).most_common(1)[0][0]
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # pyright: ignore[reportArgumentType] - as above
            target_modules=list(own),
            rank_pattern={_exactly(layer): part.rank for layer, part in own.items() if part.rank != rank},
            alpha_pattern={_exactly(layer): a for layer, p in own.items() if (a := p.effective_alpha) != alpha},  # type: ignore[arg-type]
            init_lora_weights=False,
        )
        with torch.random.fork_rng(devices=[]):
            inject(module, config)
    train_in_float32(modules)
    with torch.no_grad():
        parameters = trainable(modules)
        for layer, part in update.items():
            parameters[layer + DOWN].copy_(part.down)
            parameters[layer + UP].copy_(part.up)


def inject(module: Any, config: Any) -> None:
    """Put adapters into a network: by diffusers' own means, where it has them for this one."""
    from peft import inject_adapter_in_model

    if hasattr(module, "add_adapter"):
        module.add_adapter(config)
    else:
        inject_adapter_in_model(config, module, ADAPTER)


def _exactly(layer: str) -> str:
    """The pattern of peft that is met by this layer alone."""
    return f"^{re.escape(layer)}"


def train_in_float32(modules: Mapping[str, Any]) -> None:
    """Keep what is trained in float32, whatever the frozen weights are in."""
    for parameter in trainable(modules).values():
        parameter.data = parameter.data.float()


def factors(modules: Mapping[str, Any], parameters: Mapping[str, torch.Tensor]) -> dict[str, Factors]:
    """``network.module`` → the factors of its adapter, on the CPU.

    Args:
        modules: the networks, which know each layer's alpha.
        parameters: by their names in memory.
    """
    return {
        layer: Factors(parameters[layer + DOWN].detach().cpu(), parameters[layer + UP].detach().cpu(), alpha)
        for layer, alpha in _alphas(modules, parameters).items()
    }


def values_of(
    update: Mapping[str, Factors], modules: Mapping[str, Any], parameters: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Values for the trained parameters that make the adapters act as this LoRA does.

    Args:
        update: ``network.module`` → factors, by the model's own names.

    Raises:
        ModelError: it adapts other layers than the policy, or with another rank.
    """
    alphas = _alphas(modules, parameters)
    missing, unknown = ([layer for layer in one if layer not in other] for one, other in ((alphas, update), (update, alphas)))
    if missing or unknown:
        raise ModelError(_mismatch(missing, unknown))
    values: dict[str, torch.Tensor] = {}
    for layer, part in update.items():
        rank = parameters[layer + DOWN].shape[0]
        if part.rank != rank:
            raise ModelError(
                f"the LoRA's {layer} has rank {part.rank}, the policy's {rank}: set policy.lora.rank to the file's, or "
                "policy.lora.init to the file"
            )
        values[layer + DOWN] = part.down
        values[layer + UP] = part.up * (part.scale * rank / alphas[layer])
    return values


def _alphas(modules: Mapping[str, Any], parameters: Mapping[str, torch.Tensor]) -> dict[str, float]:
    found = {}
    for layer in (name.removesuffix(DOWN) for name in parameters if name.endswith(DOWN)):
        network, _, inside = layer.partition(".")
        found[layer] = float(modules[network].get_submodule(inside).lora_alpha[ADAPTER])
    return found


def _mismatch(missing: list[str], unknown: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"it lacks {len(missing)} layers that the policy adapts, such as {missing[0]}")
    if unknown:
        parts.append(f"it has {len(unknown)} layers that the policy does not adapt, such as {unknown[0]}")
    return (
        f"the LoRA does not fit: {'; '.join(parts)}; set policy.lora (targets, conv, text_encoder) as it was made, or "
        "policy.lora.init to the file"
    )


def _check_targets(unet: Any, lora: Lora) -> None:
    layers = [name for name, layer in unet.named_modules() if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))]
    for target in lora.targets:
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            known = {layer.rsplit(".", 1)[-1] for layer in layers} | set(ATTENTION)
            raise ModelError(f"lora.targets: no layer of the U-Net is called {target!r}{nearest(target, known - {'0'})}")


def trainable(modules: Mapping[str, Any]) -> dict[str, torch.nn.Parameter]:
    """``module.parameter`` → parameter, of everything that takes a gradient."""
    return {
        f"{name}.{key}": parameter
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad
    }


class AdapterReference:
    """The frozen start as the same networks with their adapters switched off: no second copy."""

    def __init__(self, modules: Mapping[str, Any]):
        self._modules = list(modules.values())

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [layer for module in self._modules for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(enabled=False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(enabled=True)

    def at(self, strength: float) -> contextlib.AbstractContextManager[None]:
        """Inside, the adapters act so strongly: 0 is the frozen start, 1 what was trained."""
        return adapters_at(self._modules, strength)


@contextlib.contextmanager
def folded(module: Any) -> Iterator[None]:
    """Inside, the adapters of ``module`` are part of its weights: no small products beside the large ones.

    For drawing only, and for float32: half precision would round a young adapter's update away. The weights come back as they
    were, to the bit, because they are put aside and not computed back.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    places: list[tuple[Any, str, Any]] = [
        (parent, name, layer)
        for parent in module.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, BaseTunerLayer)
    ]
    bases = [layer.get_base_layer() for _, _, layer in places]
    before = [base.weight.data for base in bases]
    try:
        with torch.no_grad():
            for (parent, name, layer), base in zip(places, bases, strict=True):
                base.weight.data = base.weight.data + layer.get_delta_weight(layer.active_adapters[0])
                setattr(parent, name, base)  # an adapted layer takes its time even when it adds nothing
        yield
    finally:
        for (parent, name, layer), base, data in zip(places, bases, before, strict=True):
            base.weight.data = data
            setattr(parent, name, layer)
