"""Images: Stable Diffusion behind the core's protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_diffusion.options import DenoisingLoss, Lora, Memory, Sampling
    from raft_diffusion.policy import StableDiffusion

_HOME = {
    "StableDiffusion": "policy",
    "DenoisingLoss": "options",
    "Lora": "options",
    "Memory": "options",
    "Sampling": "options",
}

__all__ = ["DenoisingLoss", "Lora", "Memory", "Sampling", "StableDiffusion"]


def __getattr__(name: str) -> Any:
    """Import on first use: ``import raft_diffusion`` stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"raft_diffusion.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
