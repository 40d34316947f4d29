"""What was trained in a pipeline's denoiser, in files that a plain pipeline takes, and back from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.files import publishing, write_json
from raft_core.models.public_name import model_of, public_name
from raft_core.reading.json_data import parse_json
from raft_diffusion.export.files import NOTE, fitting
from raft_diffusion.model.folders import read_json
from raft_diffusion.model.lora import factors, values_of
from raft_diffusion.model.lora_file import DIFFUSERS_FILE, PEFT_CONFIG, PEFT_FILE, PEFT_PREFIX, Factors, is_lora
from raft_diffusion.model.lora_fit import fitted, weight_shapes
from raft_diffusion.model.pipeline_engine import PipelineEngine
from raft_diffusion.model.pipelines import DENOISERS
from raft_diffusion.model.transformer_lora import read_transformer_lora
from raft_diffusion.model.weights_file import check_whole, header, read_tensors, write_tensors
from raft_diffusion.pipeline_options import TransformerLora

WEIGHTS = "weights.safetensors"  # of a checkpoint
NETWORK_FILE = "diffusion_pytorch_model.safetensors"


def save_lora(engine: PipelineEngine, lora: TransformerLora, model: str, folder: Path) -> list[Path]:
    """Write the adapters as the pipeline's ``load_lora_weights`` reads them, or as peft does where it has none.

    Alphas are multiplied into the up matrices, so that every program reads the same strength.
    """
    update = factors(engine.networks, engine.parameters)
    note = {"format": "pt", "raft.model": public_name(model), "raft.pipeline": engine.description.pipeline}
    if lora.init is None:  # else its layers and ranks are those of a file, which this one now is
        note["raft.lora"] = json.dumps({name: value for name, value in asdict(lora).items() if name not in ("init", "before")})
    if hasattr(type(engine.pipe), "load_lora_weights"):
        return [write_tensors(folder / DIFFUSERS_FILE, _named(update, ""), note)]
    network = engine.description.denoiser
    place = folder / network
    place.mkdir(parents=True, exist_ok=True)
    file = write_tensors(place / PEFT_FILE, _named(update, PEFT_PREFIX, network), note)
    write_json(place / PEFT_CONFIG, _peft_config(update, network, model))
    return [place / PEFT_CONFIG, file]


def _named(update: Mapping[str, Factors], prefix: str, network: str = "") -> dict[str, torch.Tensor]:
    tensors = {}
    for layer, part in update.items():
        name = prefix + layer.removeprefix(f"{network}.")
        tensors[name + ".lora_A.weight"] = part.down.contiguous()
        tensors[name + ".lora_B.weight"] = (part.up * part.scale).contiguous()
    return tensors


def _peft_config(update: Mapping[str, Factors], network: str, model: str) -> dict[str, Any]:
    ranks = {layer.removeprefix(f"{network}."): part.rank for layer, part in update.items()}
    rank = max(ranks.values())
    other = {layer: value for layer, value in ranks.items() if value != rank}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": public_name(model),
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": sorted(ranks),
        "inference_mode": True,
    }


def save_network(engine: PipelineEngine, model: str, folder: Path) -> list[Path]:
    """Write the whole denoiser as its folder in a pipeline, at once or not at all; returns its files.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    target = folder / engine.description.denoiser
    engine.denoiser.register_to_config(_name_or_path=public_name(model))  # and not the place where it lay on this machine
    with publishing(target) as filled:
        engine.denoiser.save_pretrained(filled, safe_serialization=True)
        write_json(filled / NOTE, {"model": public_name(model), "lora": None})
    return sorted(target.iterdir())


def find_weights(path: Path) -> Path:
    """The file that a path names: itself, or that of an exported or checkpoint folder.

    Raises:
        ModelError: there is none, or it is a pickle.
    """
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} is no .safetensors file; others may be pickles, which can run code when they are loaded")
        return path
    inside = [f"{network}/{name}" for network in DENOISERS for name in (NETWORK_FILE, PEFT_FILE)]
    names = [DIFFUSERS_FILE, WEIGHTS, NETWORK_FILE, PEFT_FILE, *inside]
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise ModelError(f"{path} holds no weights: give a .safetensors file, or a folder with one of {', '.join(names)}")
    return found


def read_values(path: Path, engine: PipelineEngine) -> dict[str, torch.Tensor]:
    """Values for the trained parameters from a checkpoint, a LoRA, or an exported denoiser.

    Raises:
        ModelError: the file cannot be read, or was made for something else; names the file.
    """
    file = find_weights(path)
    check_whole(file)
    network = engine.description.denoiser
    tensors = read_tensors(file)
    try:
        for prefix in ("", f"{network}."):
            named = {f"{prefix}{name}": value for name, value in tensors.items()}
            if engine.parameters.keys() <= named.keys() <= engine.parameters.keys() | _all_names(engine):
                return fitting({name: named[name] for name in engine.parameters}, engine.parameters)
        if not is_lora(tensors):
            raise ModelError(f"these are not the weights of the {network} of {engine.description.pipeline}")
        update = fitted(read_transformer_lora(file, type(engine.pipe), network), weight_shapes(engine.networks))
        return values_of(update, engine.networks, engine.parameters)
    except ModelError as error:
        raise ModelError(f"{'' if str(file) in str(error) else f'{file}: '}{error}") from None


def _all_names(engine: PipelineEngine) -> set[str]:
    """Of what a denoiser's file holds: buffers, such as tables of positions, besides parameters."""
    return {f"{engine.description.denoiser}.{name}" for name in engine.denoiser.state_dict()}


def arguments_for(path: Path) -> dict[str, Any]:
    """Constructor arguments of a policy that can take these weights: lora, and model if the files tell.

    Raises:
        ModelError: no weights are there, or they are damaged.
    """
    file = find_weights(path)
    check_whole(file)
    keys = header(file)
    note: dict[str, Any] = keys.pop("__metadata__", {})
    if not is_lora(keys):
        beside = file.parent / NOTE
        return {"lora": None} | model_of(file, read_json(beside).get("model") if beside.is_file() else None)
    lora: dict[str, Any] = {"init": str(file), "before": "base"}
    if "raft.lora" in note:
        try:
            lora = asdict(TransformerLora(**parse_json(note["raft.lora"])))
        except (ValueError, TypeError, ConfigError) as error:
            raise ModelError(f"{file} notes settings of its LoRA that cannot be read: {error}") from error
    return {"lora": lora} | model_of(file, note.get("raft.model"))
