"""Trained weights in the folders that peft and transformers take, and back from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.machine.files import replacing, write_json
from raft_core.models.public_name import model_of, public_name
from raft_text.model.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    fitting,
    foreign_lora,
    read_adapter_config,
    read_settings,
    read_tensors,
    to_peft,
)
from raft_text.model.critic import PREFIX as CRITIC
from raft_text.model.loading import load_model, quiet
from raft_text.model.places import PICKLES
from raft_text.options import Lora, Prompting, Sampling

MODEL_FILE = "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
CHECKPOINT_FILE = "weights.safetensors"
NOTE = "raft.json"  # beside the weights: what they were trained from, and how prompts were put
#: What they hold that is gone by; the settings in it are checked as those of any policy.
NOTE_SHAPE = {"model": (str, type(None)), "lora": (dict, type(None)), "prompting": dict, "sampling": dict}


def save_adapter(config: Any, parameters: Mapping[str, torch.Tensor], folder: Path, note: Mapping[str, Any]) -> list[Path]:
    """Write the adapters as peft does; returns the files."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {to_peft(name): value.detach().cpu().contiguous() for name, value in sorted(parameters.items())}
    with replacing(folder / ADAPTER_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
    write_json(folder / ADAPTER_CONFIG, {**plain, "base_model_name_or_path": note["model"], "inference_mode": True})
    write_json(folder / NOTE, dict(note))
    return [folder / ADAPTER_FILE, folder / ADAPTER_CONFIG, folder / NOTE]


def save_whole(network: Any, tokenizer: Any, folder: Path, note: Mapping[str, Any]) -> list[Path]:
    """Write the whole model as a transformers folder, tokenizer included; returns the files."""
    before = set(folder.iterdir()) if folder.is_dir() else set()
    with quiet():
        network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / NOTE, dict(note))
    return sorted(set(folder.iterdir()) - before | {folder / NOTE})


#: Of the sampling, what makes a completion; how fast it is made is for each machine to say.
DRAWN_BY = ("temperature", "top_k", "top_p", "repetition_penalty", "min_new_tokens", "max_new_tokens", "stop")


def note(model: str, lora: Lora | None, prompting: Prompting, sampling: Sampling) -> dict[str, Any]:
    """What ``arguments_for`` needs to know besides the weights."""
    drawn = {name: value for name, value in asdict(sampling).items() if name in DRAWN_BY}
    return {
        "model": public_name(model),
        "lora": asdict(lora) if lora else None,
        "prompting": asdict(prompting),
        "sampling": drawn,
    }


def arguments_for(path: Path) -> dict[str, Any]:
    """Constructor arguments of a policy that can take these weights, as far as the files tell.

    Raises:
        ModelError: no weights are there.
    """
    folder = path if path.is_dir() else path.parent
    file = find_weights(path)
    if (folder / NOTE).is_file():
        noted = dict(read_settings(folder / NOTE, NOTE_SHAPE))
        model = model_of(file, noted.pop("model", None))
        return noted | model
    if (folder / ADAPTER_CONFIG).is_file():
        config = read_adapter_config(folder / ADAPTER_CONFIG)
        base = config.get("base_model_name_or_path")
        return ({"model": base} if base else {}) | {"lora": foreign_lora(config)} | model_of(file, None)
    if (folder / "config.json").is_file():
        return {"model": str(folder)}
    return {}


def find_weights(path: Path) -> Path:
    """The weight file that a path names: itself, or the one of an exported, peft, transformers or checkpoint folder.

    Raises:
        ModelError: there is none, or only pickles.
    """
    if path.suffix in PICKLES:
        raise ModelError(f"{path} is a pickle, which can run code when it is loaded; use a .safetensors file")
    if path.is_file():
        return path
    names = (ADAPTER_FILE, CHECKPOINT_FILE, MODEL_FILE, MODEL_INDEX)
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is not None:
        return found
    pickles = [each.name for each in path.glob("*") if each.suffix in PICKLES]
    if pickles:
        raise ModelError(f"{path} holds a pickle ({pickles[0]}), which can run code when it is loaded; use safetensors")
    raise ModelError(f"{path} holds no weights: give a folder with one of {', '.join(names)}")


def read_values(path: Path, parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Values for the trained parameters from a checkpoint, an adapter or a whole model.

    Raises:
        ModelError: the file cannot be read, or was made for something else.
    """
    file = find_weights(path)
    if file.name in (MODEL_FILE, MODEL_INDEX):
        found = dict(load_model(str(file.parent), torch.float32).named_parameters())
    else:
        found = read_tensors(file)
    return fitting(found, parameters, file, ignored=CRITIC)
