"""Trained weights in the folders that peft and transformers take, and back from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.machine.files import replacing, write_json
from raft_core.models.public_name import model_of, public_name
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import require_shape
from raft_text.model.critic import PREFIX as CRITIC
from raft_text.model.loading import load_model, quiet
from raft_text.model.places import PICKLES
from raft_text.options import Lora, Prompting, Sampling

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MODEL_FILE = "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
CHECKPOINT_FILE = "weights.safetensors"
NOTE = "raft.json"  # beside the weights: what they were trained from, and how prompts were put
#: What they hold that is gone by; the settings in it are checked as those of any policy.
NOTE_SHAPE = {"model": (str, type(None)), "lora": (dict, type(None)), "prompting": dict, "sampling": dict}
ADAPTER_SHAPE = {"base_model_name_or_path": str, "r": int, "lora_alpha": float, "target_modules": (str, list)}
PREFIX = "base_model.model."


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


def to_peft(name: str) -> str:
    """A parameter's name in an adapter file: ``….q_proj.lora_A.default.weight`` without the adapter's name."""
    return PREFIX + name.replace(".default.", ".")


def arguments_for(path: Path) -> dict[str, Any]:
    """Constructor arguments of a policy that can take these weights, as far as the files tell.

    Raises:
        ModelError: no weights are there.
    """
    folder = path if path.is_dir() else path.parent
    file = find_weights(path)
    if (folder / NOTE).is_file():
        noted = dict(_read(folder / NOTE, NOTE_SHAPE))
        model = model_of(file, noted.pop("model", None))
        return noted | model
    if (folder / ADAPTER_CONFIG).is_file():
        config = _read(folder / ADAPTER_CONFIG, ADAPTER_SHAPE, ADAPTER_SHAPE)
        return {"model": config["base_model_name_or_path"], "lora": foreign_lora(config)} | model_of(file, None)
    if (folder / "config.json").is_file():
        return {"model": str(folder)}
    return {}


def _read(file: Path, shape: Mapping[str, Any], needs: Iterable[str] = ()) -> dict[str, Any]:
    """An object from a file that anybody may have written.

    Raises:
        ModelError: it cannot be read, or is not of this shape.
    """
    try:
        return require_shape(read_object(file, repeated_keys=True), shape, "", needs)
    except (OSError, Unreadable) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None


def foreign_lora(config: Mapping[str, Any]) -> dict[str, Any]:
    """``Lora`` arguments of an adapter that another program trained.

    Raises:
        ModelError: it is no plain LoRA.
    """
    for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(name):
            raise ModelError(f"{ADAPTER_CONFIG} sets {name}, which is more than a plain LoRA: it cannot be taken up here")
    if config.get("peft_type", "LORA") != "LORA":
        raise ModelError(f"{ADAPTER_CONFIG} is of the type {config['peft_type']}, but only LORA can be taken up")
    targets = config["target_modules"]
    return {
        "rank": config["r"],
        "alpha": float(config["lora_alpha"]),
        "targets": [targets] if isinstance(targets, str) else sorted(map(str, targets)),
    }


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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = find_weights(path)
    if file.name in (MODEL_FILE, MODEL_INDEX):
        found = dict(load_model(str(file.parent), torch.float32).named_parameters())
    else:
        try:
            found = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} could not be read: {error}") from error
    spelled = {to_peft(name): name for name in parameters}
    values = {spelled.get(name, name): value for name, value in found.items() if not name.startswith(CRITIC)}
    if lacking := sorted(parameters.keys() - values.keys()):
        raise ModelError(
            f"{file} lacks {lacking[0]!r} ({len(lacking)} such weights): it is for another model or other settings of lora"
        )
    if unknown := sorted(values.keys() - parameters.keys()):
        raise ModelError(
            f"{file} has {unknown[0]!r}, which this policy does not train ({len(unknown)} such weights): set policy.lora to fit"
        )
    for name, value in values.items():
        if value.shape != parameters[name].shape:
            shapes = tuple(value.shape), tuple(parameters[name].shape)
            raise ModelError(f"{file}: {name} has shape {shapes[0]}, but the policy's has {shapes[1]}")
    return values
