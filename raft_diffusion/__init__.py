"""Images: Stable Diffusion behind the core's protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_diffusion.options import Addons, DenoisingLoss, Embedding, Lora, Memory, MergedLora, Sampling
    from raft_diffusion.policy import StableDiffusion

_HOME = {
    "StableDiffusion": "policy",
    "Addons": "options",
    "DenoisingLoss": "options",
    "Embedding": "options",
    "Lora": "options",
    "Memory": "options",
    "MergedLora": "options",
    "Sampling": "options",
}

__all__ = ["Addons", "DenoisingLoss", "Embedding", "Lora", "Memory", "MergedLora", "Sampling", "StableDiffusion"]


def __getattr__(name: str) -> Any:
    """Import on first use: ``import raft_diffusion`` stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"raft_diffusion.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
