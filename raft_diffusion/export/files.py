"""Trained weights in files that other programs take, and back from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.files import publishing, write_json
from raft_core.models.public_name import model_of, public_name
from raft_core.reading.json_data import parse_json
from raft_diffusion.export import lora_formats
from raft_diffusion.model import addons, single_file
from raft_diffusion.model.engine import Engine
from raft_diffusion.model.folders import PICKLES, read_json
from raft_diffusion.model.lora import factors, values_of
from raft_diffusion.model.lora_file import DIFFUSERS_FILE, PEFT_FILE, Factors, is_lora, peft_files
from raft_diffusion.model.weights_file import check_whole, header, read_tensors, write_tensors
from raft_diffusion.options import Lora

KOHYA_FILE = "lora_kohya.safetensors"
UNET_FILE = "diffusion_pytorch_model.safetensors"
NOTE = "raft.json"  # beside a whole U-Net: what it was trained from
ONE_FILE = "1TB"  # SDXL's U-Net in float32 is just above the size at which diffusers cuts a file in two


def save_lora(engine: Engine, lora: Lora, model: str, folder: Path) -> list[Path]:
    """Write the adapters in diffusers' and in kohya's spelling, with metadata in the headers; returns the two files."""
    update = factors(engine.networks, engine.parameters)
    note = {"format": "pt", "raft.model": public_name(model)}
    if lora.init is None:  # else its layers and ranks are those of a file, which this one now is
        note["raft.lora"] = json.dumps({name: value for name, value in asdict(lora).items() if name not in ("init", "before")})
    kohya = lora_formats.to_kohya(update, engine.networks["unet"].config)
    return [
        write_tensors(folder / DIFFUSERS_FILE, lora_formats.to_diffusers(update), note),
        write_tensors(folder / KOHYA_FILE, kohya, note | kohya_metadata(engine, update, model)),
    ]


def save_network(engine: Engine, model: str, folder: Path) -> list[Path]:
    """Write the whole U-Net as the ``unet`` folder of a diffusers pipeline, at once or not at all; returns its files.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    target = folder / "unet"
    unet = engine.networks["unet"]
    unet.register_to_config(_name_or_path=public_name(model))  # and not the place where it lay on this machine
    with publishing(target) as filled:
        unet.save_pretrained(filled, safe_serialization=True, max_shard_size=ONE_FILE)
        write_json(filled / NOTE, {"model": public_name(model), "lora": None})
    return sorted(target.iterdir())


def kohya_metadata(engine: Engine, update: Mapping[str, Factors], model: str) -> dict[str, str]:
    """What ComfyUI and A1111 read to tell which base model a LoRA is for, and to show it to a person."""
    family, prediction = engine.family, engine.process.prediction
    wide = {layer for layer, part in update.items() if part.down.ndim == 4 and part.down.shape[-1] > 1}
    conv = _rank_and_alpha([update[layer] for layer in update if layer in wide])
    rank, alpha = _rank_and_alpha([update[layer] for layer in update if layer not in wide]) or conv or ("0", "0")
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps({"conv_dim": conv[0], "conv_alpha": conv[1]} if conv else {}),
        "ss_base_model_version": {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}[family],
        "ss_v2": str(family == "sd2"),
        "ss_sd_model_name": Path(model).name,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": {
            "sd1": "stable-diffusion-v1/lora",
            "sd2": "stable-diffusion-v2-768-v/lora"
            if engine.process.prediction == "v_prediction"
            else "stable-diffusion-v2-512/lora",
            "sdxl": "stable-diffusion-xl-v1-base/lora",
        }[family],
        "modelspec.implementation": "diffusers",
        "modelspec.title": f"RAFT LoRA for {Path(model).name}",
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else prediction,
    }


def _rank_and_alpha(parts: Sequence[Factors]) -> tuple[str, str] | None:
    """Of layers; ``Dynamic``, as sd-scripts says, where their ranks or alphas differ; None without layers."""
    if not parts:
        return None
    ranks, alphas = {part.rank for part in parts}, {part.effective_alpha for part in parts}
    return tuple(str(values.pop()) if len(values) == 1 else "Dynamic" for values in (ranks, alphas))  # type: ignore[return-value]


def find_weights(path: Path) -> Path:
    """The weights that a path names: a file, that of an exported or checkpoint folder, or a folder of peft's with several.

    Raises:
        ModelError: there are none, or they are a pickle.
    """
    if path.suffix in PICKLES:
        raise ModelError(f"{path} is a pickle, which can run code when it is loaded; use a .safetensors file")
    if path.is_file():
        return path
    names = (DIFFUSERS_FILE, "weights.safetensors", UNET_FILE, f"unet/{UNET_FILE}", KOHYA_FILE, PEFT_FILE)
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is not None:
        return found
    if peft_files(path):
        return path
    raise ModelError(f"{path} holds no weights: give a .safetensors file, or a folder with one of {', '.join(names)}")


def read_values(path: Path, engine: Engine, lora: Lora | None) -> dict[str, torch.Tensor]:
    """Values for the trained parameters from a checkpoint, a LoRA of any spelling, or an exported U-Net.

    Raises:
        ModelError: the file cannot be read, or was made for something else.
    """
    file = find_weights(path)
    tensors = read_tensors(file) if file.is_file() else {}
    try:
        for prefix in ("", "unet."):
            named = {f"{prefix}{name}": value for name, value in tensors.items()}
            if named.keys() == engine.parameters.keys():
                return fitting(named, engine.parameters)
        if lora is None:
            raise ModelError("these are not the U-Net's weights; to load a LoRA, set policy.lora")
        return values_of(addons.read_fitting(file, engine.networks), engine.networks, engine.parameters)
    except ModelError as error:
        raise ModelError(f"{'' if str(file) in str(error) else f'{file}: '}{error}") from None


def fitting(values: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The values by name.

    Raises:
        ModelError: one has another shape than its parameter.
    """
    for name, value in values.items():
        if value.shape != parameters[name].shape:
            raise ModelError(f"{name} has shape {tuple(value.shape)}, but the policy's has {tuple(parameters[name].shape)}")
    return dict(values)


def arguments_for(path: Path) -> dict[str, Any]:
    """Constructor arguments of a policy that can take these weights: lora, and model if the files tell.

    Raises:
        ModelError: no weights are there, they are damaged, or they are neither a model, nor a LoRA, nor a U-Net.
    """
    file = find_weights(path)
    if file.is_dir():
        return {"lora": {"init": str(file), "before": "base"}} | model_of(file / "unet", None)
    check_whole(file)
    keys = header(file)
    note: dict[str, Any] = keys.pop("__metadata__", {})
    if single_file.is_model(keys):
        return {"model": str(file)}
    if "conv_in.weight" in keys or "unet.conv_in.weight" in keys:
        beside = file.parent / NOTE
        return {"lora": None} | model_of(file, read_json(beside).get("model") if beside.is_file() else None)
    if not is_lora(keys):
        raise ModelError(f"{file}: no LoRA in this file, and no U-Net: none of its tensors is named so")
    lora = _noted(file, note["raft.lora"]) if "raft.lora" in note else {"init": str(file), "before": "base"}
    return {"lora": lora} | model_of(file, note.get("raft.model"))


def _noted(file: Path, settings: str) -> dict[str, Any]:
    try:
        return asdict(Lora(**parse_json(settings)))
    except (ValueError, TypeError, ConfigError) as error:
        raise ModelError(f"{file} notes settings of its LoRA that cannot be read: {error}") from error
