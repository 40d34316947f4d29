"""One evaluation of the U-Net, guided or not, for sampling and training alike."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from raft_diffusion.model.encoding import Condition
from raft_diffusion.process.denoise import guided


@dataclass(frozen=True)
class Guidance:
    """How two predictions become one; a scale of at most 1 means one prediction."""

    scale: float = 1.0
    rescale: float = 0.0

    @property
    def on(self) -> bool:
        return self.scale > 1


@dataclass(frozen=True)
class Predictor:
    """The U-Net with what stays the same from call to call.

    Attributes:
        unet: a UNet2DConditionModel.
        dtype: of its matrix products and convolutions, unless a trainer's mixed precision is in force; the latents, the sums
            and the trained parameters stay float32.
        time_ids: [6] SDXL's original size, crop and target size; None for the others.
        embedded_guidance: [1, G] the guidance scale as latent consistency models are told it; None for the others.
    """

    unet: Any
    dtype: torch.dtype = torch.float32
    time_ids: torch.Tensor | None = None
    embedded_guidance: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, timestep: torch.Tensor, condition: Condition) -> torch.Tensor:
        """[B, C, h, w] float32 prediction for x of that shape, timesteps [B] and B conditions."""
        added: dict[str, Any] = {}
        if self.time_ids is not None:
            added = {"text_embeds": condition.pooled, "time_ids": self.time_ids.to(x.device).expand(len(x), -1)}
        with self._precision(x.device.type):
            out = self.unet(
                x,
                timestep,
                condition.tokens,
                timestep_cond=None if self.embedded_guidance is None else self.embedded_guidance.expand(len(x), -1),
                added_cond_kwargs=added or None,
                return_dict=False,
            )[0]
        return out.float()

    def _precision(self, kind: str) -> AbstractContextManager[Any]:
        """The precision of one evaluation: a trainer's, where it has set one, else that of the frozen weights.

        Casts of trained parameters must not be cached: one made without gradients (sampling, the reference) or of other values
        (the start of full fine-tuning) would be taken again where the policy's are needed.
        """
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype
        return torch.autocast(kind, dtype, cache_enabled=False) if dtype != torch.float32 else nullcontext()

    def guided(
        self, x: torch.Tensor, timestep: torch.Tensor, condition: Condition, negative: Condition, guidance: Guidance
    ) -> torch.Tensor:
        """The guided prediction; both passes in one batch, and only one pass when guidance is off."""
        if not guidance.on:
            return self(x, timestep, condition)
        both = Condition.cat([negative, condition])
        unconditional, conditional = self(torch.cat([x, x]), torch.cat([timestep, timestep]), both).chunk(2)
        return guided(unconditional, conditional, guidance.scale, guidance.rescale)
