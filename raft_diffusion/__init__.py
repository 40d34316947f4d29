"""Images: Stable Diffusion and any other text-to-image pipeline of diffusers behind the core's protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_diffusion.options import Addons, DenoisingLoss, Embedding, Lora, Memory, MergedLora, Sampling
    from raft_diffusion.pipeline_options import (
        PipelineLoss,
        PipelineMemory,
        PipelineSampling,
        StochasticSteps,
        TransformerLora,
    )
    from raft_diffusion.policy import StableDiffusion
    from raft_diffusion.text_to_image import TextToImage

_HOME = {
    "StableDiffusion": "policy",
    "Addons": "options",
    "DenoisingLoss": "options",
    "Embedding": "options",
    "Lora": "options",
    "Memory": "options",
    "MergedLora": "options",
    "PipelineLoss": "pipeline_options",
    "PipelineMemory": "pipeline_options",
    "PipelineSampling": "pipeline_options",
    "Sampling": "options",
    "StochasticSteps": "pipeline_options",
    "TextToImage": "text_to_image",
    "TransformerLora": "pipeline_options",
}

__all__ = [
    "Addons",
    "DenoisingLoss",
    "Embedding",
    "Lora",
    "Memory",
    "MergedLora",
    "PipelineLoss",
    "PipelineMemory",
    "PipelineSampling",
    "Sampling",
    "StableDiffusion",
    "StochasticSteps",
    "TextToImage",
    "TransformerLora",
]


def __getattr__(name: str) -> Any:
    """Import on first use: ``import raft_diffusion`` stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"raft_diffusion.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
