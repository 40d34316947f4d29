"""The whole model with what was trained, in one file that ComfyUI and A1111 load, and its configuration beside it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.machine.files import publishing, write_json
from raft_core.models.merged import plain_state
from raft_core.models.public_name import public_name
from raft_diffusion.export.ldm_layout import differences, to_ldm
from raft_diffusion.model import loading, single_file
from raft_diffusion.model.engine import Engine
from raft_diffusion.model.lora import folded
from raft_diffusion.model.weights_file import write_tensors

_ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-512",
    "sd2-v": "stable-diffusion-v2-768-v",
    "sdxl": "stable-diffusion-xl-v1-base",
}


def mistakes(path: Path) -> list[str]:
    """Why a whole model cannot be written here."""
    if path.suffix != ".safetensors":
        return [f"{path} is no name of a single file: give FILE.safetensors"]
    taken = [place for place in (path, path.with_suffix("")) if place.exists()]
    return [f"{taken[0]} exists already: give another name, or remove it"] if taken else []


def save_merged(engine: Engine, model: str, path: Path, strength: float, dtype: torch.dtype) -> list[Path]:
    """Write the model as ``path`` and its configuration as the folder of the same name; returns the two.

    Textual inversions are left out: programs load them from their own files.

    Raises:
        ModelError: the original layout has no place for a part of this model.
        StoreError: a full disk, a folder that cannot be written to.
    """
    pipe = engine.pipe
    with contextlib.ExitStack() as stack:
        if strength != 1:
            stack.enter_context(engine.reference.at(strength))
        for network in engine.networks.values():
            stack.enter_context(folded(network))
        states = {name: plain_state(network, dtype) for name, network in {**engine.networks, "vae": pipe.vae}.items()}
    for name, words in engine.words.items():
        for key in [key for key in states[name] if key.endswith("token_embedding.weight")]:
            states[name][key] = states[name][key][:words].clone()
    tensors = to_ldm(states, pipe)
    if found := differences(tensors, states, pipe):
        raise ModelError(
            f"the original layout of Stable Diffusion cannot hold this model: {len(found)} tensors would be read otherwise, "
            f"such as {found[0]}; use the LoRA or the U-Net's folder"
        )
    if engine.encodes_size and engine.process.prediction == "v_prediction":
        tensors[single_file.V_KEY] = torch.zeros(0)  # by which ComfyUI and trainers tell that SDXL predicts v
    folder = path.with_suffix("")
    save_configuration(engine, model, folder)
    return [write_tensors(path, tensors, metadata(engine, model)), folder]


def metadata(engine: Engine, model: str) -> dict[str, str]:
    """What programs show of a file, in the names of Stability's model spec."""
    v = engine.process.prediction == "v_prediction"
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": _ARCHITECTURES["sd2-v" if engine.family == "sd2" and v else engine.family],
        "modelspec.title": f"{Path(public_name(model)).name}, aligned by RAFT",
        "modelspec.prediction_type": "v" if v else engine.process.prediction,
        "raft.model": public_name(model),
    }


def save_configuration(engine: Engine, model: str, folder: Path) -> None:
    """Write a diffusers folder without weights, with which the file is loaded without a network."""
    pipe = engine.pipe
    with publishing(folder) as filled:
        pipe.save_config(filled)
        pipe.scheduler.save_pretrained(filled / "scheduler")
        for name, tokenizer in zip(("tokenizer", "tokenizer_2"), loading.load_tokenizers(model), strict=False):
            tokenizer.save_pretrained(filled / name)
        for name, network in {**engine.networks, "vae": pipe.vae}.items():
            (filled / name).mkdir()
            config = network.config.to_dict() if hasattr(network.config, "to_dict") else dict(network.config)
            if name in engine.words:
                config["vocab_size"] = engine.words[name]
            write_json(filled / name / "config.json", config)
        for file in filled.rglob("*.json"):
            _forget_places(file)


def _forget_places(file: Path) -> None:
    """Take out of a configuration where it was read from."""
    config: Any = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(config, dict) and (places := {"_name_or_path", "name_or_path"} & config.keys()):
        write_json(file, {name: value for name, value in config.items() if name not in places})
