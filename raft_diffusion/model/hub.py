"""Pipelines on the Hugging Face Hub: their configurations first, then the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raft_core.errors import ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.offline import reason
from raft_core.models.quiet import quiet
from raft_diffusion.model import folders


def fetch_configs(name: str) -> Path:
    """The local folder of a pipeline on the Hub, with its configuration files and nothing else yet.

    Raises:
        ModelError: there is no such repository, or no way to it.
    """
    try:
        index = _fetched(name, folders.INDEX)
        for file in folders.config_files(folders.read_index(index.parent)):
            _fetched(name, file)
    except ModelError:
        raise
    except Exception as error:  # of the Hub's client, its HTTP library and the file system
        raise ModelError(f"model: {name} could not be fetched from the Hub: {reason(error, name)}") from error
    return index.parent


def _fetched(name: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, file))


def fetch(name: str, variant: str | None) -> Path:
    """The local folder of a pipeline on the Hub, with all that is needed to load it.

    Raises:
        ModelError: there is no such repository, no way to it, or no safetensors weights in it.
    """
    ensure_importable()
    import diffusers

    try:
        with quiet():
            # Components that are given are not downloaded.
            extras: dict[str, Any] = {"safety_checker": None}
            return Path(diffusers.DiffusionPipeline.download(name, variant=variant, use_safetensors=True, **extras))
    except Exception as error:  # of diffusers, the Hub's client, its HTTP library and the file system
        raise ModelError(f"model: {name} could not be fetched from the Hub: {reason(error, name)}") from error
