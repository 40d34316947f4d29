"""The whole model with what was trained, as a folder of transformers that any program loads."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.machine.files import publishing
from raft_core.models.merged import plain_state
from raft_core.models.reference import CopyReference, adapters_at
from raft_text.model.engine import Engine
from raft_text.model.loading import quiet
from raft_text.model.lora import folded


def mistakes(folder: Path) -> list[str]:
    """Why a whole model cannot be written here."""
    if folder.suffix in (".safetensors", ".gguf", ".bin"):
        return [f"{folder} names a file, but a language model is written as a folder: give a new folder"]
    if folder.exists():
        return [f"{folder} exists already: give another name, or remove it"]
    return []


def save_merged(engine: Engine, tokenizer: Any, folder: Path, strength: float, dtype: torch.dtype) -> list[Path]:
    """Write the model and its tokenizer, whole or not at all; returns the files.

    Raises:
        ModelError: the base weights are quantised.
        StoreError: a full disk, a folder that cannot be written to.
    """
    if getattr(engine.network, "is_quantized", False):
        raise ModelError("quantised weights cannot be merged: set policy.memory.quantize to null")
    plain = merged_network(engine, strength, dtype)
    with publishing(folder) as filled, quiet():
        plain.save_pretrained(filled)
        tokenizer.save_pretrained(filled)
    return sorted(folder.iterdir())


@torch.no_grad()
def merged_network(engine: Engine, strength: float, dtype: torch.dtype) -> Any:
    """A network without adapters that predicts what the policy predicts, what was trained at this strength."""
    network = engine.network
    with at_strength(engine, strength), folded(network):
        state = plain_state(network, dtype)
    config = type(network.config).from_dict(network.config.to_dict())
    config.dtype = dtype
    head, words = network.get_output_embeddings(), network.get_input_embeddings()
    if config.tie_word_embeddings and head is not None:
        names = {id(module): name for name, module in network.named_modules()}
        ends = [state[f"{names[id(module)]}.weight".replace(".base_layer", "")] for module in (head, words)]
        # An adapter on one of two layers that share their weights acts on that one alone.
        config.tie_word_embeddings = torch.equal(*ends)
    with torch.device("meta"):
        plain = type(network)(config)
    lacking, unknown = plain.load_state_dict(state, strict=False, assign=True)
    plain.tie_weights()
    if unknown or (lacking := [name for name in lacking if plain.get_parameter(name).is_meta]):
        raise ModelError(
            f"{type(network).__name__} cannot be written without its adapters: {(unknown or lacking)[0]} is left over"
        )
    plain.generation_config = network.generation_config
    conversions = getattr(network, "_weight_conversions", None)
    if conversions is not None:  # how the files that it came from spell its weights
        plain._weight_conversions = conversions
    return plain


def at_strength(engine: Engine, strength: float) -> contextlib.AbstractContextManager[None]:
    """Inside, what was trained acts so strongly: 0 is the frozen start, 1 as trained."""
    if strength == 1:
        return contextlib.nullcontext()
    reference = engine.reference
    return reference.at(strength) if isinstance(reference, CopyReference) else adapters_at([engine.network], strength)
