"""Trained weights in files that other programs take, and back from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.files import publishing, write_json
from raft_diffusion.export import lora_formats
from raft_diffusion.model import single_file
from raft_diffusion.model.engine import Engine
from raft_diffusion.model.folders import PICKLES, read_json
from raft_diffusion.model.weights_file import check_whole, header, read_tensors, write_tensors
from raft_diffusion.options import Lora

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # the name that load_lora_weights looks for in a folder
KOHYA_FILE = "lora_kohya.safetensors"
UNET_FILE = "diffusion_pytorch_model.safetensors"
NOTE = "raft.json"  # beside a whole U-Net: what it was trained from
ONE_FILE = "1TB"  # SDXL's U-Net in float32 is just above the size at which diffusers cuts a file in two


def save_lora(engine: Engine, lora: Lora, model: str, folder: Path) -> list[Path]:
    """Write the adapters in diffusers' and in kohya's spelling, with metadata in the headers; returns the two files."""
    update = lora_formats.factors(engine.parameters, lora.effective_alpha)
    note = {"format": "pt", "raft.model": model, "raft.lora": json.dumps(asdict(lora))}
    kohya = lora_formats.to_kohya(update, xl=engine.encodes_size)
    return [
        write_tensors(folder / DIFFUSERS_FILE, lora_formats.to_diffusers(update), note),
        write_tensors(folder / KOHYA_FILE, kohya, note | kohya_metadata(engine, lora, model)),
    ]


def save_network(engine: Engine, model: str, folder: Path) -> list[Path]:
    """Write the whole U-Net as the ``unet`` folder of a diffusers pipeline, at once or not at all; returns its files.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    target = folder / "unet"
    unet = engine.networks["unet"]
    unet.register_to_config(_name_or_path=model)  # and not the place where it lay on this machine
    with publishing(target) as filled:
        unet.save_pretrained(filled, safe_serialization=True, max_shard_size=ONE_FILE)
        write_json(filled / NOTE, {"model": model, "lora": None})
    return sorted(target.iterdir())


def kohya_metadata(engine: Engine, lora: Lora, model: str) -> dict[str, str]:
    """What ComfyUI and A1111 read to tell which base model a LoRA is for, and to show it to a person."""
    family = _family(engine)
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(lora.rank),
        "ss_network_alpha": str(lora.effective_alpha),
        "ss_network_args": json.dumps({"conv_dim": lora.rank, "conv_alpha": lora.effective_alpha} if lora.conv else {}),
        "ss_base_model_version": {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}[family],
        "ss_v2": str(family == "sd2"),
        "ss_sd_model_name": Path(model).name,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": {
            "sd1": "stable-diffusion-v1/lora",
            "sd2": "stable-diffusion-v2-768-v/lora" if engine.prediction == "v_prediction" else "stable-diffusion-v2-512/lora",
            "sdxl": "stable-diffusion-xl-v1-base/lora",
        }[family],
        "modelspec.implementation": "diffusers",
        "modelspec.title": f"RAFT LoRA for {Path(model).name}",
        "modelspec.prediction_type": "v" if engine.prediction == "v_prediction" else engine.prediction,
    }


def _family(engine: Engine) -> str:
    """SDXL is told the picture's size; SD 2.x reads OpenCLIP's text states, which are wider than SD 1.x's."""
    if engine.encodes_size:
        return "sdxl"
    return "sd2" if engine.networks["unet"].config.cross_attention_dim >= 1024 else "sd1"


def find_weights(path: Path) -> Path:
    """The weight file that a path names: itself, or the one of an exported or checkpoint folder.

    Raises:
        ModelError: there is none, or it is a pickle.
    """
    if path.suffix in PICKLES:
        raise ModelError(f"{path} is a pickle, which can run code when it is loaded; use a .safetensors file")
    if path.is_file():
        return path
    names = (DIFFUSERS_FILE, "weights.safetensors", UNET_FILE, f"unet/{UNET_FILE}", KOHYA_FILE)
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise ModelError(f"{path} holds no weights: give a .safetensors file, or a folder with one of {', '.join(names)}")
    return found


def read_values(path: Path, parameters: Mapping[str, torch.Tensor], lora: Lora | None) -> dict[str, torch.Tensor]:
    """Values for the trained parameters from a checkpoint, an exported LoRA of either spelling, or an exported U-Net.

    Raises:
        ModelError: the file cannot be read, or was made for something else.
    """
    file = find_weights(path)
    tensors = read_tensors(file)
    try:
        return _match(tensors, parameters, lora)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None


def _match(
    tensors: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor], lora: Lora | None
) -> dict[str, torch.Tensor]:
    if tensors.keys() == parameters.keys():
        return _fitting(tensors, parameters)
    whole = {f"unet.{name}": value for name, value in tensors.items()}
    if whole.keys() == parameters.keys():
        return _fitting(whole, parameters)
    if lora is None:
        raise ModelError("these are not the U-Net's weights; to load a LoRA, set policy.lora")
    return lora_formats.into_parameters(lora_formats.read(tensors), parameters, lora.scale)


def _fitting(values: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for name, value in values.items():
        if value.shape != parameters[name].shape:
            raise ModelError(f"{name} has shape {tuple(value.shape)}, but the policy's has {tuple(parameters[name].shape)}")
    return dict(values)


def arguments_for(path: Path) -> dict[str, Any]:
    """Constructor arguments of a policy that can take these weights: lora, and model if the file tells.

    Raises:
        ModelError: no weights are there, they are damaged, or they are neither a model, nor a LoRA, nor a U-Net.
    """
    file = find_weights(path)
    check_whole(file)
    keys = header(file)
    note: dict[str, Any] = keys.pop("__metadata__", {})
    if single_file.is_model(keys):
        return {"model": str(file)}
    if "raft.lora" in note:
        return _noted(file, {"model": note.get("raft.model"), "lora": note["raft.lora"]})
    if "conv_in.weight" in keys or "unet.conv_in.weight" in keys:
        beside = file.parent / NOTE
        return {"lora": None, **(read_json(beside) if beside.is_file() else {})}
    try:
        return {"lora": asdict(lora_formats.infer(lora_formats.read(read_tensors(file))))}
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None


def _noted(file: Path, note: Mapping[str, Any]) -> dict[str, Any]:
    try:
        lora = Lora(**json.loads(note["lora"]))
    except (ValueError, TypeError, ConfigError) as error:
        raise ModelError(f"{file} notes settings of its LoRA that cannot be read: {error}") from error
    return {"lora": asdict(lora)} | ({"model": note["model"]} if note["model"] else {})
