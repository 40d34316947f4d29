"""What is trained: adapters or the whole model, by stable names; and the frozen start beside it."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from raft_core.errors import ModelError, nearest
from raft_text.model.facts import keeps_state
from raft_text.options import Lora

ALL_LINEAR = "all-linear"
#: Types of models whose kernels read the weights of ``out_proj`` themselves, as peft knows them.
_MAMBA = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")


def add_adapters(network: Any, lora: Lora) -> Any:
    """Put adapters into the network, in place; their values depend on ``lora.seed`` alone. Returns their peft configuration.

    Raises:
        ModelError: a target that no layer is called by, or at which an adapter would do nothing.
    """
    from peft import LoraConfig, TaskType, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    check_targets(network, lora)
    around = read_around(network)
    if wrong := sorted(set(around) & set(lora.targets)):
        raise ModelError(
            f"lora.targets: {type(network).__name__} reads the weights of {wrong[0]!r} without asking the layer, so an adapter "
            "there would do nothing: leave it out"
        )
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.effective_alpha,  # pyright: ignore[reportArgumentType] - peft divides by it; a float works
        target_modules=ALL_LINEAR if ALL_LINEAR in lora.targets else list(lora.targets),
        exclude_modules=around if ALL_LINEAR in lora.targets and around else None,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in network.modules()),  # GPT-2 keeps its weights transposed
    )
    if ALL_LINEAR in lora.targets and (own := routers(network)):
        config.exclude_modules = sorted({*own, *(config.exclude_modules or ())})
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Of experts, which are parameters of one layer and no layers of their own, peft asks whether they are layers.
        warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
        warnings.filterwarnings("ignore", r"Model has `tie_word_embeddings=True`", UserWarning)  # told by ``tied_notes``
        warnings.filterwarnings("ignore", r"fan_in_fan_out is set to", UserWarning)  # and then corrects it, layer by layer
        torch.manual_seed(lora.seed)
        inject_adapter_in_model(config, network)
    for parameter in trainable(network).values():
        parameter.data = parameter.data.float()
    network.eval()
    return config


def read_around(network: Any) -> list[str]:
    """Names of linear layers whose weights a model that keeps a state reads without asking the layer, so that an adapter there
    would act where it is folded into the weights and nowhere else.

    Found by one forward pass: no layer of such a name is called in it. ``out_proj`` peft refuses in some types for the sake of
    their fast kernels.
    """
    if not keeps_state(network) or any(parameter.is_meta for parameter in network.parameters()):
        return []
    linear = {name: layer for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)}
    called: set[str] = set()

    def note(leaf: str) -> Any:
        return lambda *_: called.add(leaf)

    hooks = [layer.register_forward_hook(note(name.rpartition(".")[2])) for name, layer in linear.items()]
    try:
        with torch.no_grad():
            ids = (
                torch.arange(4, device=next(network.parameters()).device)[None] % network.get_input_embeddings().num_embeddings
            )
            network(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    refused = {"out_proj"} if network.config.model_type in _MAMBA else set()
    return sorted(({name.rpartition(".")[2] for name in linear} - called) | refused)


def left_out(network: Any, adapter: Any) -> list[str]:
    """What a person should know of linear layers that get no adapter; ``adapter`` is peft's configuration."""
    excluded = set(adapter.exclude_modules or ()) if adapter is not None else set()
    names = sorted(excluded - set(routers(network)))
    what = f"{type(network).__name__} reads their weights without asking the layers"
    return [f"lora.targets all-linear leaves {', '.join(names)} out: {what}"] if names else []


def routers(network: Any) -> list[str]:
    """Names of layers that are linear by their class and return something else than a product: which expert reads a token, in
    Phi-MoE and Llama 4. An adapter has nothing there to add its own product to."""
    found = {
        name.rpartition(".")[2]
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear) and "Router" in type(layer).__name__
    }
    return sorted(found)


def check_targets(network: Any, lora: Lora) -> None:
    """Every target must name a layer.

    Raises:
        ModelError: one does not, or returns no product; names the nearest that does.
    """
    if wrong := sorted(set(routers(network)) & set(lora.targets)):
        raise ModelError(
            f"lora.targets: {wrong[0]!r} chooses experts, so an adapter has no product there to add to: leave it out"
        )
    names = {name for name, _ in network.named_modules()}
    for target in lora.targets:
        if target != ALL_LINEAR and not any(name == target or name.endswith(f".{target}") for name in names):
            leaves = {name.rpartition(".")[2] for name, layer in network.named_modules() if hasattr(layer, "weight")}
            raise ModelError(
                f"lora.targets: no layer of the model is called {target!r}{nearest(target, leaves | {ALL_LINEAR})}"
            )


def train_in_full(network: Any) -> None:
    """Make every parameter trainable, in float32."""
    network.requires_grad_(True)
    for parameter in network.parameters():
        parameter.data = parameter.data.float()


def trainable(network: Any) -> dict[str, torch.nn.Parameter]:
    """Everything that takes a gradient, by its name in the transformers model."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


class AdapterReference:
    """The frozen start as the same network with its adapters switched off: no second copy."""

    def __init__(self, network: Any):
        self._layers = adapted_layers(network)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        for layer in self._layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)


def adapted_layers(network: Any) -> list[Any]:
    """The layers that have an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in network.modules() if isinstance(layer, BaseTunerLayer)]


@dataclass(frozen=True)
class Place:
    """Where the update of an adapter goes: a parameter of the module that it adapts."""

    layer: Any
    module: Any
    name: str

    @property
    def weight(self) -> torch.nn.Parameter:
        return getattr(self.module, self.name)


def places(network: Any) -> list[Place]:
    """The parameters that the network's adapters update.

    A linear layer or an embedding has one, ``weight``; of a layer of experts, peft wraps each stack of matrices by itself.
    """
    layers = adapted_layers(network)
    return [Place(layer, layer.get_base_layer(), getattr(layer, "parameter_name", "weight")) for layer in layers]


def tied_notes(network: Any) -> list[str]:
    """What a person should know of adapters on weights that two layers share."""
    sharing: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        sharing.setdefault(id(parameter), []).append(name.removesuffix(".weight").removesuffix(".base_layer"))
    shared = [sharing[id(place.weight)] for place in places(network)]
    return [
        f"{' and '.join(names)} share their weights, and lora.targets adapts them one by one: merged into the model by another "
        "program, the adapters would act on both"
        for names in dict.fromkeys(tuple(names) for names in shared if len(names) > 1)
    ]


@contextlib.contextmanager
def folded(network: Any) -> Iterator[None]:
    """Inside, the adapters are part of the weights: no small products beside the large ones.

    For drawing only, and for float32: half precision would round a young adapter's update away. Parameters are exchanged and
    not changed: they come back to the bit, and another layer that shares one (a tied embedding) gets no update of this one.
    """
    found = places(network)
    before = [place.weight for place in found]
    try:
        with torch.no_grad():
            for place in found:
                weight = place.weight + place.layer.get_delta_weight(place.layer.active_adapters[0])
                setattr(place.module, place.name, torch.nn.Parameter(weight, requires_grad=False))
                place.layer.enable_adapters(False)
        yield
    finally:
        for place, weight in zip(found, before, strict=True):
            setattr(place.module, place.name, weight)
            place.layer.enable_adapters(True)


@contextlib.contextmanager
def checkpointing(network: Any) -> Iterator[None]:
    """Inside, layers forget their activations and compute them again; dropout stays off.

    transformers' own switch wants the whole model in training mode, which would switch dropout on, and stays on while samples
    are drawn, where it switches the cache off.
    """
    for layer in checkpointed_layers(network):
        layer.gradient_checkpointing = layer.training = True
        layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False)
    try:
        yield
    finally:
        for layer in checkpointed_layers(network):
            layer.gradient_checkpointing = layer.training = False


def checkpointed_layers(network: Any) -> list[Any]:
    """The layers that can forget their activations; a model of older make has none."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [layer for layer in network.modules() if isinstance(layer, GradientCheckpointingLayer)]
