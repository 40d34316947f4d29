"""LoRA adapters in peft's layout: where they are, what their settings say, and their values; safetensors only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import require_shape
from raft_core.store.manifest import RUN
from raft_text.model import loading
from raft_text.model.lora import add_adapters, trainable
from raft_text.model.places import PICKLES, locate
from raft_text.options import Lora

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_SHAPE = {"base_model_name_or_path": (str, type(None)), "r": int, "lora_alpha": float, "target_modules": (str, list)}
NEEDED = ("r", "lora_alpha", "target_modules")
PREFIX = "base_model.model."
#: Settings of peft that a plain LoRA does not have, when they are set.
BEYOND = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform", "trainable_token_indices")


def to_peft(name: str) -> str:
    """A parameter's name in an adapter file: ``….q_proj.lora_A.default.weight`` without the adapter's name."""
    return PREFIX + name.replace(".default.", ".")


@dataclass(frozen=True)
class Adapter:
    """A LoRA to go on training.

    Attributes:
        file: its values.
        lora: its settings, as those of a fresh one.
    """

    file: Path
    lora: Lora

    def put(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Put its values into fresh adapters of its settings.

        Raises:
            ModelError: the file cannot be read, or was made for another model.
        """
        values = fitting(read_tensors(self.file), parameters, self.file)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])


def find_adapter(name: str, lora: Lora | None = None) -> Adapter:
    """The adapter that is here: in a folder, of a run, or beside its configuration as a file; of the Hub's what was fetched.

    Args:
        lora: settings of whoever takes it up; its seed is kept.

    Raises:
        ModelError: there is none, it is a pickle, or no plain LoRA.
    """
    path = Path(name).expanduser()
    if path.suffix in PICKLES:
        raise ModelError(f"{name} is a pickle, which can run code when it is loaded; give a .safetensors file")
    if (path / RUN).is_file():
        path = path / "export"
    file = path if path.is_file() else path / ADAPTER_FILE
    if not file.is_file():
        pickles = [each.name for each in path.glob("adapter_model*") if each.suffix in PICKLES] if path.is_dir() else []
        if pickles:
            raise ModelError(f"{name} holds a pickle ({pickles[0]}), which can run code when it is loaded; use safetensors")
        raise ModelError(f"{name} holds no adapter ({ADAPTER_FILE}); give its folder, its file, or OWNER/NAME on the Hub")
    config = read_adapter_config(file.parent / ADAPTER_CONFIG)
    settings = foreign_lora(config)
    seed = lora.seed if lora is not None else 0
    return Adapter(file, Lora(**settings, seed=seed))


def is_on_hub(name: str) -> bool:
    """Whether an adapter is named by where it is on the Hub."""
    path = Path(name).expanduser()
    local = path.exists() or path.is_absolute() or name.startswith((".", "~")) or path.suffix in (".safetensors", *PICKLES)
    return not local and name.count("/") == 1


def fetched(name: str) -> str:
    """The folder of an adapter; of one on the Hub, a copy of its two files.

    Raises:
        ModelError: it cannot be had.
    """
    if not is_on_hub(name):
        return name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return snapshot_download(name, allow_patterns=[ADAPTER_CONFIG, ADAPTER_FILE])
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ModelError(
            f"lora.init: the adapter {name} could not be fetched: {' '.join(str(error).split())[:400]}; without a network, "
            "give the folder of a copy"
        ) from error


def taken_up(lora: Lora, model: str) -> Adapter:
    """The adapter that ``lora.init`` names, checked against a model before its weights load.

    Raises:
        ModelError: it cannot be had, is no plain LoRA, or was made for another model.
    """
    assert lora.init is not None
    found = find_adapter(fetched(lora.init), lora)
    if mistakes := base_mistakes(found, model):
        raise ModelError(mistakes[0])
    return found


def init_mistakes(lora: Lora | None, model: str) -> list[str]:
    """Why a LoRA cannot be gone on with, in words; of the Hub's adapters and models it is told when they are loaded."""
    if lora is None or lora.init is None or is_on_hub(lora.init):
        return []
    try:
        found = find_adapter(lora.init)
        return [] if locate(model)[0] == "hub" else base_mistakes(found, model)
    except ModelError as error:
        return [f"lora.init: {error}"]


def base_mistakes(adapter: Adapter, model: str) -> list[str]:
    """That an adapter was made for another model, by the shapes of both; no weight is read."""
    from transformers import AutoModelForCausalLM

    config = loading.load_config(model)
    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config)
            add_adapters(network, adapter.lora)
        fitting(read_shapes(adapter.file), trainable(network), adapter.file)
    except ModelError as error:
        return [f"lora.init: the adapter was made for another model than {model}: {error}"]
    return []


# ---------------------------------------------------------------------- files


def read_adapter_config(file: Path) -> dict[str, Any]:
    """peft's settings of an adapter.

    Raises:
        ModelError: they cannot be read, or are not of this shape.
    """
    return read_settings(file, ADAPTER_SHAPE, NEEDED)


def read_settings(file: Path, shape: Mapping[str, Any], needs: Iterable[str] = ()) -> dict[str, Any]:
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
    for name in BEYOND:
        if config.get(name):
            raise ModelError(f"{ADAPTER_CONFIG} sets {name}, which is more than a plain LoRA: it cannot be taken up here")
    if config.get("peft_type", "LORA") != "LORA":
        raise ModelError(f"{ADAPTER_CONFIG} is of the type {config['peft_type']}, but only LORA can be taken up")
    if config.get("bias", "none") != "none":
        raise ModelError(f"{ADAPTER_CONFIG} trains biases ({config['bias']}), which is more than a plain LoRA")
    targets, rank, alpha = config["target_modules"], config["r"], float(config["lora_alpha"])
    return {
        "rank": rank,
        # Rank-stabilised, the product is scaled by alpha / √rank.
        "alpha": alpha * rank**0.5 if config.get("use_rslora") else alpha,
        "targets": [targets] if isinstance(targets, str) else sorted(map(str, targets)),
    }


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file.

    Raises:
        ModelError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} could not be read: {error}") from error


def read_shapes(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file without their values.

    Raises:
        ModelError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return {name: torch.empty(opened.get_slice(name).get_shape(), device="meta") for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} could not be read: {error}") from error


def fitting(
    found: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor], file: Path, ignored: str | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a file by the names of the trained parameters.

    Args:
        ignored: beginning of names that are passed over.

    Raises:
        ModelError: some lack, are too many, or have another shape.
    """
    spelled = {to_peft(name): name for name in parameters}
    values = {spelled.get(name, name): value for name, value in found.items() if not (ignored and name.startswith(ignored))}
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
