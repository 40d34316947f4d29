"""A LoRA in a file of any trainer that diffusers reads: its layers and their factors, by diffusers' own conversion of names.

An adapted layer has a down matrix [r, in, …] and an up matrix [out, r, …]; its update is alpha / r · up · down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.quiet import quiet
from raft_core.reading.files import excerpt
from raft_core.reading.json_data import parse_json
from raft_core.reading.shapes import require_shape
from raft_diffusion.model.folders import PICKLES, read_json
from raft_diffusion.model.weights_file import check_whole, header, read_tensors

ADAPTED = ("unet", "text_encoder", "text_encoder_2")
#: The name that diffusers' ``load_lora_weights`` looks for in a folder.
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE, PEFT_CONFIG, PEFT_PREFIX = "adapter_model.safetensors", "adapter_config.json", "base_model.model."
#: Entry of a file's header in which diffusers' ``save_lora_weights`` notes ranks and alphas.
SETTINGS_NOTE = "lora_adapter_metadata"

_DOWN, _UP, _ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"
_DOWN_SPELLINGS = re.compile(r"[._](lora_down|lora_A|lora\.down|lora_linear_layer\.down)\.weight$")
_OTHER_KINDS: Mapping[str, str] = {
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "lokr_": "a LoKr",
    "hada_": "a LoHa",
    "oft_": "an OFT",
    "lora_mid": "a LoCon with a middle matrix (Tucker)",
}


@dataclass(frozen=True)
class Factors:
    """One layer's update: alpha / rank · up · down; ``alpha`` None means the rank."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def effective_alpha(self) -> float:
        return float(self.rank if self.alpha is None else self.alpha)

    @property
    def scale(self) -> float:
        return self.effective_alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it is added to."""
        return (self.up.shape[0], *self.down.shape[1:])

    def update(self) -> torch.Tensor:
        """What is added to the layer's weight: float32, of its shape."""
        return (self.scale * self.up.float().flatten(1) @ self.down.float().flatten(1)).reshape(self.shape)


def is_lora(keys: Iterable[str]) -> bool:
    """Whether tensors of these names are a LoRA, of whatever trainer."""
    return any("lora" in key for key in keys)


def locate_lora(path: str) -> Path:
    """The file of a LoRA that a setting names; a folder stands for the one in it, or for those that peft has kept there.

    Raises:
        ModelError: there is none, or it is a pickle.
    """
    place = Path(path).expanduser()
    if place.suffix in PICKLES:
        raise ModelError(f"{path} is a pickle, which can run code when it is loaded; use a .safetensors file")
    if place.is_dir():
        files = [file for name in (DIFFUSERS_FILE, PEFT_FILE) if (file := place / name).is_file()]
        if files or peft_files(place):
            return files[0] if files else place
        raise ModelError(f"{path} holds no LoRA: give a .safetensors file, or a folder with {DIFFUSERS_FILE} or {PEFT_FILE}")
    if not place.is_file():
        raise ModelError(f"there is no LoRA {path}: give a .safetensors file, or a folder with one")
    check_whole(place)
    if not is_lora(header(place)):
        raise ModelError(f"{path} holds no LoRA: none of its tensors is named so")
    return place


def peft_files(folder: Path) -> list[Path]:
    """The adapters in a folder in which peft has kept each network's under the network's name."""
    return [file for name in ADAPTED if (file := folder / name / PEFT_FILE).is_file()]


def read_lora(path: Path, *, xl: bool, layers_per_block: int) -> dict[str, Factors]:
    """``network.module`` → its factors, modules named as diffusers names them.

    Args:
        path: a safetensors file, or a folder with those of ``peft_files``.
        xl: whether it is for SDXL.
        layers_per_block: of the U-Net; names of the original layout are counted by it.

    Raises:
        ModelError: it is no LoRA, one of another kind, or damaged; names the file.
    """
    found: dict[str, Factors] = {}
    for file in peft_files(path) if path.is_dir() else [path]:
        check_whole(file)
        tensors, settings = read_tensors(file), _noted_settings(file)
        if any(key.startswith(PEFT_PREFIX) for key in tensors):
            network = file.parent.name if file.parent.name in ADAPTED else _network_of(tensors)
            tensors = {f"{network}.{key.removeprefix(PEFT_PREFIX)}": value for key, value in tensors.items()}
            settings = {f"{network}.{key}": value for key, value in _peft_settings(file).items()}
        try:
            found |= factors_of(tensors, settings, xl=xl, layers_per_block=layers_per_block)
        except ModelError as error:
            raise ModelError(f"{file}: {error}") from None
    return found


def factors_of(
    tensors: Mapping[str, torch.Tensor],
    settings: Mapping[str, Any] | None = None,
    *,
    xl: bool = False,
    layers_per_block: int = 2,
) -> dict[str, Factors]:
    """The factors among tensors of any spelling.

    Args:
        settings: peft's by ``network.setting``, where these tell the alphas.

    Raises:
        ModelError: nothing in it is a LoRA, a down matrix has no up matrix, or there is more in it than these.
    """
    settings = settings or {}
    _refuse_other_kinds(tensors, settings)
    tensors = {key.replace(".default.", "."): value for key, value in tensors.items()}  # peft's names in memory
    alphas = {key.removesuffix(_ALPHA): value for key, value in tensors.items() if key.endswith(_ALPHA)}
    matrices = {key: value for key, value in tensors.items() if not key.endswith(_ALPHA)}
    renamed = _renamed(matrices, xl, layers_per_block)
    spelt = {id(value): key for key, value in matrices.items()}  # renaming hands the same tensors on
    found: dict[str, Factors] = {}
    used: set[str] = set()
    for layer in [name.removesuffix(_DOWN) for name in renamed if name.endswith(_DOWN)]:
        down, up = renamed[layer + _DOWN], renamed.get(layer + _UP)
        if up is None:
            raise ModelError(f"the LoRA has {spelt[id(down)]}, but no up matrix beside it: the file is damaged")
        stem = _DOWN_SPELLINGS.sub("", spelt[id(down)])
        found[layer] = _factors(layer, down, up, alphas.get(stem), settings)
        used |= {spelt[id(down)], spelt[id(up)], stem + _ALPHA}
    if not found:
        raise ModelError(
            "no LoRA for Stable Diffusion in this file: it adapts no U-Net and no text encoder; its tensors are called such as "
            f"{min(tensors, default='nothing')}"
        )
    if unused := sorted(tensors.keys() - used):  # biases, embeddings, layers that diffusers does not know …
        raise ModelError(
            f"the LoRA has {len(unused)} tensors besides its down and up matrices, such as {unused[0]}: it is of another kind, "
            "and without them its pictures would be others"
        )
    return found


def noted_factors(
    tensors: Mapping[str, torch.Tensor], alphas: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Factors]:
    """The factors among tensors that are named as diffusers names them, ``network.module.lora_A.weight``.

    Args:
        tensors: of a LoRA, and nothing else.
        alphas: ``network.module`` + ``.alpha`` → value, where the file tells them so.
        settings: peft's by ``network.setting``, where these tell the alphas.

    Raises:
        ModelError: nothing in it is a LoRA, a matrix has no other, or there is more in it than these.
    """
    _refuse_other_kinds(tensors, settings)
    found: dict[str, Factors] = {}
    for layer in [name.removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN)]:
        if layer + _UP not in tensors:
            raise ModelError(f"the LoRA has {layer + _DOWN}, but no up matrix beside it: the file is damaged")
        value = alphas.get(layer + _ALPHA)
        alpha = None if value is None else torch.as_tensor(value)
        found[layer] = _factors(layer, tensors[layer + _DOWN], tensors[layer + _UP], alpha, settings)
    if not found:
        raise ModelError(f"no LoRA in this file: its tensors are called such as {min(tensors, default='nothing')}")
    if unused := sorted(tensors.keys() - {layer + end for layer in found for end in (_DOWN, _UP)}):
        raise ModelError(f"the LoRA has {len(unused)} tensors besides its down and up matrices, such as {unused[0]}")
    return found


def _refuse_other_kinds(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
    for mark, kind in _OTHER_KINDS.items():
        if key := next((key for key in tensors if mark in key), None):
            raise ModelError(
                f"this is {kind} ({key}), but only plain LoRAs can be read: its pictures would be others without it"
            )
    if any(key.endswith("use_dora") and value for key, value in settings.items()):
        raise ModelError("this is a DoRA (use_dora), but only plain LoRAs can be read: its pictures would be others without it")


def _renamed(matrices: Mapping[str, torch.Tensor], xl: bool, layers_per_block: int) -> dict[str, torch.Tensor]:
    """The same tensors by ``network.module.lora_A.weight`` and ``….lora_B.weight``."""
    ensure_importable()
    from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
    from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft, convert_unet_state_dict_to_peft

    loader = StableDiffusionXLLoraLoaderMixin if xl else StableDiffusionLoraLoaderMixin
    try:
        with quiet():
            state, *_ = loader.lora_state_dict(dict(matrices), unet_config=SimpleNamespace(layers_per_block=layers_per_block))
        found: dict[str, torch.Tensor] = {}
        for network in ADAPTED:
            part = {key.removeprefix(f"{network}."): value for key, value in state.items() if key.startswith(f"{network}.")}
            if network == "unet":
                part = convert_unet_state_dict_to_peft(part)
            elif any("lora_A" not in key and "lora_B" not in key for key in part):
                part = convert_state_dict_to_peft(convert_state_dict_to_diffusers(part))
            found |= {f"{network}.{key}": value for key, value in part.items()}
    except Exception as error:  # whatever a file of someone else's makes diffusers stumble over
        raise ModelError(f"diffusers cannot read this LoRA: {' '.join(str(error).split())[:300]}") from error
    return found


def _factors(
    layer: str, down: torch.Tensor, up: torch.Tensor, alpha: torch.Tensor | None, settings: Mapping[str, Any]
) -> Factors:
    fits = down.ndim >= 2 and up.ndim >= 2 and up.shape[1] == down.shape[0] > 0 and down.ndim == up.ndim
    if not fits or (alpha is not None and alpha.numel() != 1):
        raise ModelError(f"the LoRA's matrices of {layer} do not fit each other: the file is damaged")
    value = _noted_alpha(layer, down.shape[0], settings) if alpha is None else float(alpha)
    if value is not None and (not math.isfinite(value) or value == 0):
        raise ModelError(f"the LoRA's alpha of {layer} is {value:g}, with which it says nothing: the file is damaged")
    if not all(matrix.is_floating_point() for matrix in (down, up)):
        raise ModelError(f"the LoRA's matrices of {layer} hold whole numbers ({down.dtype}): it is quantised, or damaged")
    return Factors(down, up, value)


def _noted_alpha(layer: str, rank: int, settings: Mapping[str, Any]) -> float | None:
    """The alpha that peft's settings give a layer; None where they say nothing of its network."""
    network, module = layer.split(".", 1)
    own = {key.removeprefix(f"{network}."): value for key, value in settings.items() if key.startswith(f"{network}.")}
    if "lora_alpha" not in own:
        return None
    try:
        patterns = require_shape(own.get("alpha_pattern") or {}, dict, "alpha_pattern")
        alpha = next((value for name, value in patterns.items() if _names(name, module)), own["lora_alpha"])
        alpha = float(require_shape(alpha, (int, float), "lora_alpha"))
    except ValueError as error:
        raise ModelError(f"the LoRA notes alphas that cannot be read: {error}") from error
    return alpha * math.sqrt(rank) if own.get("use_rslora") else alpha  # rank-stabilised: divided by the rank's root


def _names(pattern: str, module: str) -> bool:
    """Whether an entry of peft's patterns is meant for a module: its name, or the end of it unless it begins with ^.

    Raises:
        ValueError: it is another regular expression; what is read from a file is not searched by.
    """
    name = pattern.removeprefix("^").replace("\\.", ".")
    if not re.fullmatch(r"[\w.]*", name):
        raise ValueError(f"{excerpt(pattern, 60)} is a regular expression, no layer's name")
    return module == name or (not pattern.startswith("^") and module.endswith(f".{name}"))


def _noted_settings(file: Path) -> dict[str, Any]:
    """Peft's settings by ``network.setting``, as diffusers notes them in the header; empty where it does not."""
    note = header(file).get("__metadata__") or {}
    try:
        return require_shape(parse_json(require_shape(note, dict, "metadata").get(SETTINGS_NOTE, "{}")), dict, SETTINGS_NOTE)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{file} notes settings of its LoRA that cannot be read: {error}") from error


def _peft_settings(file: Path) -> dict[str, Any]:
    config = file.parent / PEFT_CONFIG
    if not config.is_file():
        raise ModelError(f"{file} was written by peft, but {PEFT_CONFIG} beside it is missing, which tells its alpha")
    return read_json(config)


def _network_of(keys: Iterable[str]) -> str:
    return "text_encoder" if any(".encoder.layers." in key for key in keys) else "unet"
