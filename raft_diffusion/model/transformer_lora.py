"""Adapters on the denoiser of any pipeline: fresh ones, or those of a file that the pipeline's own loader reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError, nearest
from raft_core.models.quiet import quiet
from raft_diffusion.model.lora import inject, put_adapters, train_in_float32
from raft_diffusion.model.lora_file import (
    PEFT_CONFIG,
    PEFT_FILE,
    PEFT_PREFIX,
    SETTINGS_NOTE,
    Factors,
    locate_lora,
    noted_factors,
)
from raft_diffusion.model.lora_fit import fitted, weight_shapes
from raft_diffusion.model.weights_file import header, read_tensors
from raft_diffusion.pipeline_options import TransformerLora

#: Ends of the names of attention's projections in the transformers of diffusers, those for the text's tokens included.
PROJECTIONS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
    "to_qkv_mlp_proj",
)


def adapted_layers(denoiser: Any, targets: Sequence[str] | None) -> list[str]:
    """Names of the linear layers that get an adapter.

    Args:
        denoiser: the network.
        targets: ends of names; None = every attention's projections.

    Raises:
        ModelError: a target that no linear layer's name ends with, or no attention known here.
    """
    linear = [name for name, layer in denoiser.named_modules() if isinstance(layer, torch.nn.Linear)]
    wanted = PROJECTIONS if targets is None else targets
    chosen = {target: [name for name in linear if name == target or name.endswith(f".{target}")] for target in wanted}
    for target in targets or ():
        if not chosen[target]:
            ends = {".".join(name.split(".")[-2:]) for name in linear} | {name.rsplit(".", 1)[-1] for name in linear}
            raise ModelError(f"lora.targets: no linear layer of the denoiser is called {target!r}{nearest(target, ends)}")
    found = {name for names in chosen.values() for name in names}
    if not found:
        raise ModelError("lora.targets: no attention of the denoiser is known here; name its layers")
    return [name for name in linear if name in found]


def add_adapter(denoiser: Any, lora: TransformerLora) -> None:
    """Put fresh adapters into a frozen network. Their values depend on ``lora.seed`` alone.

    Raises:
        ModelError: as ``adapted_layers``.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.effective_alpha,  # pyright: ignore[reportArgumentType] - peft divides by it; a float works
        target_modules=adapted_layers(denoiser, lora.targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lora.seed)
        inject(denoiser, config)
    train_in_float32({"denoiser": denoiser})


def put_adapter(pipe: Any, networks: Mapping[str, Any], init: str) -> None:
    """Put a LoRA's adapters into the denoiser, with its ranks, alphas and values.

    Raises:
        ModelError: it is none, or for another model; names the file.
    """
    file = locate_lora(init)
    try:
        update = fitted(read_transformer_lora(file, type(pipe), next(iter(networks))), weight_shapes(networks))
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None
    put_adapters(networks, update)


def read_transformer_lora(file: Path, pipeline: Any, network: str) -> dict[str, Factors]:
    """``network.module`` → factors, names converted by the pipeline's own loader.

    Args:
        file: of any trainer that the pipeline reads, or of peft's.
        pipeline: the class of diffusers.
        network: name of its denoiser.

    Raises:
        ModelError: the pipeline cannot read it, or it adapts something else.
    """
    tensors = read_tensors(file)
    if any(key.startswith(PEFT_PREFIX) for key in tensors):
        settings = {f"{network}.{key}": value for key, value in _peft_settings(file).items()}
        tensors = {f"{network}.{key.removeprefix(PEFT_PREFIX)}": value for key, value in tensors.items()}
        return noted_factors(tensors, {}, settings)
    alphas: Mapping[str, Any] = {}
    if hasattr(pipeline, "lora_state_dict") and not all(key.startswith(f"{network}.") for key in tensors):
        try:
            with quiet():
                converted = pipeline.lora_state_dict(dict(tensors), return_alphas=True)
        except Exception as error:  # whatever a file of someone else's makes diffusers stumble over
            raise ModelError(f"{pipeline.__name__} cannot read this LoRA: {' '.join(str(error).split())[:300]}") from error
        state, alphas = converted if isinstance(converted, tuple) else (converted, {})
        tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if others := sorted(key for key in tensors if not key.startswith(f"{network}.")):
        raise ModelError(f"the LoRA adapts more than the {network}, such as {others[0]}, which is not trained here")
    return noted_factors(tensors, alphas or {}, _noted(file))


def _noted(file: Path) -> dict[str, Any]:
    from raft_core.reading.json_data import parse_json

    note = header(file).get("__metadata__") or {}
    found = parse_json(note.get(SETTINGS_NOTE, "{}"))
    if not isinstance(found, dict):
        raise ModelError(f"{file} notes settings of its LoRA that cannot be read")
    return found


def _peft_settings(file: Path) -> dict[str, Any]:
    from raft_diffusion.model.folders import read_json

    config = file.parent / PEFT_CONFIG
    if not config.is_file():
        raise ModelError(f"{file.name} ({PEFT_FILE}) was written by peft, but {PEFT_CONFIG} beside it is missing")
    return read_json(config)
