"""Weight files as the rewards' authors publish them: fetched from the Hub, and read without running anything in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from raft_core.errors import ModelError
from raft_core.models.offline import reason

if TYPE_CHECKING:
    import torch

HUB = "hf-hub:"


def on_hub(weights: str) -> bool:
    """Whether this names a file of the Hub, and not one of this machine."""
    return weights.startswith(HUB)


def weight_mistakes(weights: str) -> list[str]:
    """What is wrong with a file's name, or with the file's not being there; nothing is fetched or read."""
    if on_hub(weights):
        return [] if _hub_name(weights) else [_ill_named(weights)]
    return [] if Path(weights).expanduser().is_file() else [f"there is no weight file {weights}"]


def weight_file(weights: str) -> Path:
    """The file of this name: on this machine, or ``hf-hub:OWNER/NAME/FILE``.

    Raises:
        ModelError: there is none, or a download that failed.
    """
    if on_hub(weights):
        return from_hub(weights)
    if mistakes := weight_mistakes(weights):
        raise ModelError(mistakes[0])
    return Path(weights).expanduser()


def from_hub(weights: str) -> Path:
    """The file ``hf-hub:OWNER/NAME/FILE``, downloaded at first use and cached.

    Raises:
        ModelError: another form of name, or a download that failed.
    """
    from huggingface_hub import hf_hub_download

    name = _hub_name(weights)
    if not name:
        raise ModelError(_ill_named(weights))
    try:
        return Path(hf_hub_download(*name))
    except Exception as error:
        raise ModelError(
            f"{weights} could not be fetched from the Hub ({reason(error, name[0])}): download it elsewhere and give its path"
        ) from error


def _hub_name(weights: str) -> tuple[str, str] | None:
    """(repository, file), or None when the name is of another form."""
    owner, _, rest = weights.removeprefix(HUB).partition("/")
    name, _, filename = rest.partition("/")
    return (f"{owner}/{name}", filename) if filename else None


def _ill_named(weights: str) -> str:
    return f"weights is {weights!r}, but a file on the Hub is named hf-hub:OWNER/NAME/FILE"


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a ``.safetensors`` file, or of a ``.pth`` that holds nothing but tensors.

    Raises:
        ModelError: no such file, a damaged one, or a pickle that would run code.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        # The published files were saved on a GPU.
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"there is no weight file {file}") from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} is damaged, or holds more than tensors; such a pickle can run code and is not loaded. "
            "Convert it to .safetensors where you trust it"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{file} is no readable weight file: {error}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{file} holds a {type(state).__name__}, not tensors by name")
    return state
