"""BLIP's picture-grounded text encoder from a checkpoint in its authors' layout, on the classes of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raft_core.errors import ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.quiet import quiet

if TYPE_CHECKING:
    import torch

HEAD_WIDTH = 64  # of the vision transformer's attention, for BLIP base and large alike; no checkpoint says it
VISION_EPS = 1e-6  # the authors'; that of transformers' own configuration is another
TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "layer_norm_eps",
    "hidden_act",
)
# The text encoder's names are the same on both sides.
VISION_NAMES: Sequence[tuple[str, str]] = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.(.+)", r"embeddings.patch_embedding.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(.+)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(.+)", r"encoder.layers.\1.self_attn.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.+)", r"encoder.layers.\1.self_attn.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.(.+)", r"encoder.layers.\1.mlp.\2"),
    (r"norm\.(.+)", r"post_layernorm.\1"),
)


@dataclass(frozen=True, eq=False)
class Blip:
    """A text encoder that attends to a picture.

    Attributes:
        vision: transformers' BlipVisionModel.
        text: transformers' BlipTextModel with cross-attention and no pooler.
    """

    vision: torch.nn.Module
    text: torch.nn.Module

    @property
    def image_size(self) -> int:
        """Side of the square picture that it takes, pixels."""
        return self.vision.config.image_size  # type: ignore[union-attr,return-value]

    @property
    def width(self) -> int:
        """D of what it gives."""
        return self.text.config.hidden_size  # type: ignore[union-attr,return-value]

    def to(self, device: torch.device | str) -> None:
        self.vision.to(device)
        self.text.to(device)

    def __call__(self, pixels: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, D] the last hidden state of the first token, [CLS].

        Args:
            pixels: [B, 3, H, W] normalised.
            tokens: [B, T] ids.
            mask: [B, T], 1 = a token, 0 = padding.
        """
        seen = self.vision(pixel_values=pixels).last_hidden_state  # [B, patches + 1, W]
        return self.text(input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state[:, 0]


def build(vision: Mapping[str, torch.Tensor], text: Mapping[str, torch.Tensor], text_config: Mapping[str, Any]) -> Blip:
    """From the tensors of ``visual_encoder`` and ``text_encoder`` in the authors' layout.

    Args:
        vision: sizes are read off its tensors.
        text: as is.
        text_config: BLIP's med_config.json.

    Raises:
        ModelError: a field or tensor is missing, unknown, or of another size.
    """
    ensure_importable()
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionModel

    try:
        vision_config = _vision_config(vision)
        fields = {name: text_config[name] for name in TEXT_FIELDS}
        with quiet():
            model = Blip(
                BlipVisionModel(vision_config),
                BlipTextModel(BlipTextConfig(**fields, encoder_hidden_size=vision_config.hidden_size), add_pooling_layer=False),
            )
        model.vision.load_state_dict({_vision_name(name): tensor for name, tensor in vision.items()})
        model.text.load_state_dict({name: tensor for name, tensor in text.items() if not name.endswith("position_ids")})
    except KeyError as error:
        raise ModelError(f"a BLIP without {error.args[0]!r}") from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"a BLIP of another layout: {error}") from error
    for part in (model.vision, model.text):
        part.float().eval().requires_grad_(False)
    return model


def _vision_config(vision: Mapping[str, torch.Tensor]) -> Any:
    from transformers import BlipVisionConfig

    width, _, patch, _ = vision["patch_embed.proj.weight"].shape
    patches = vision["pos_embed"].shape[1] - 1  # one is [CLS]
    blocks = {match[1] for name in vision if (match := re.match(r"blocks\.(\d+)\.", name))}
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=vision["blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=len(blocks),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        image_size=patch * round(patches**0.5),
        patch_size=patch,
        layer_norm_eps=VISION_EPS,
    )


def _vision_name(name: str) -> str:
    for theirs, ours in VISION_NAMES:
        if match := re.fullmatch(theirs, name):
            return match.expand(ours)
    return name  # load_state_dict will say that it is unknown
