"""Weight files as the rewards' authors publish them: fetched from the Hub, and read without running anything in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from raft_core.errors import ModelError

if TYPE_CHECKING:
    import torch

HUB = "hf-hub:"


def on_hub(weights: str) -> bool:
    """Whether this names a file of the Hub, and not one of this machine."""
    return weights.startswith(HUB)


def from_hub(weights: str) -> Path:
    """The file ``hf-hub:OWNER/NAME/FILE``, downloaded at first use and cached.

    Raises:
        ModelError: another form of name, or a download that failed.
    """
    from huggingface_hub import hf_hub_download

    owner, _, rest = weights.removeprefix(HUB).partition("/")
    name, _, filename = rest.partition("/")
    if not filename:
        raise ModelError(f"weights is {weights!r}, but a file on the Hub is named hf-hub:OWNER/NAME/FILE")
    try:
        return Path(hf_hub_download(f"{owner}/{name}", filename))
    except Exception as error:
        raise ModelError(
            f"{weights} could not be fetched from the Hub ({error}): download it elsewhere and give its path"
        ) from error


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
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"there is no weight file {file}") from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors; such a pickle can run code and is not loaded. "
            "Convert it to .safetensors where you trust it"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{file} is no readable weight file: {error}") from error
