"""CLIPs in the layout of transformers, made to look like open_clip's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raft_core.errors import ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.quiet import quiet
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

CONFIG = "config.json"
WEIGHTS = ("*.safetensors", "*.bin")
IMAGE_PROCESSOR = "preprocessor_config.json"
TOKENIZER = ("tokenizer.json", "vocab.json")


def is_folder(folder: Path) -> bool:
    """Whether a CLIP of transformers lives here."""
    try:
        return read_object(folder / CONFIG, repeated_keys=True).get("model_type") == "clip"
    except (OSError, Unreadable):
        return False


def folder_mistakes(folder: Path) -> list[str]:
    """What keeps this folder from being a CLIP of transformers, its processor apart."""
    if not is_folder(folder):
        return [f"{folder} is no CLIP in the layout of transformers: its {CONFIG} should have the model_type 'clip'"]
    if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        return [f"{folder} holds no weights (looked for {', '.join(WEIGHTS)})"]
    return []


def processor_mistakes(folder: Path) -> list[str]:
    """What keeps this folder from being a CLIP's processor: how pictures are resized, and the tokenizer."""
    missing = [] if (folder / IMAGE_PROCESSOR).is_file() else [IMAGE_PROCESSOR]
    missing += [] if any((folder / name).is_file() for name in TOKENIZER) else [" or ".join(TOKENIZER)]
    return [f"{folder} holds no CLIP processor: {', '.join(missing)} missing; give the folder of one"] if missing else []


def load(source: str, processor: str) -> tuple[Any, Any, Any, int]:
    """(model, preprocess, tokenize, width of the joint embedding), each as open_clip has it.

    Args:
        source: folder or Hub name of the model.
        processor: folder or Hub name of the image processor and the tokenizer.

    Raises:
        ModelError: weights are missing, and transformers would go on with random ones; or the processor prepares pictures
            otherwise than CLIP's.
        Exception: whatever else the libraries raise.
    """
    ensure_importable()
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    with quiet():
        loaded: Any = CLIPModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
        pictures: Any = CLIPImageProcessor.from_pretrained(processor)
        tokenizer: Any = AutoTokenizer.from_pretrained(processor)
    model, found = loaded
    if found["missing_keys"]:
        raise ModelError(f"its weights lack {', '.join(sorted(found['missing_keys'])[:4])}")
    preprocess = preprocessing(pictures.to_dict())
    context = model.config.text_config.max_position_embeddings

    def tokenize(texts: list[str]) -> torch.Tensor:
        # No mask: attention is causal and the embedding is read at the first end token, before any padding.
        return tokenizer(texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt")["input_ids"]

    return _as_open_clip(model), preprocess, tokenize, model.config.projection_dim


def preprocessing(settings: Mapping[str, Any]) -> Callable[[Image], torch.Tensor]:
    """PIL image in RGB → [3, H, W], as CLIP's processor of transformers makes it with Pillow.

    Not the processor itself: which library resizes, and so the last digits, would change with transformers' version. Nor the
    transform of open_clip: where the side to be cropped exceeds the crop by an odd number, transformers crops half a pixel to
    the left of the middle, and torchvision rounds to the even pixel, half of the time to the right.

    Args:
        settings: of ``preprocessor_config.json``.

    Raises:
        ModelError: they are not those of a CLIP: another way to resize, no crop, no normalisation.

    Source: transformers, image_transforms.py, ``center_crop`` and ``get_resize_output_image_size``.
    """
    import torch
    from PIL.Image import Resampling

    try:
        edge, crop = int(settings["size"]["shortest_edge"]), settings["crop_size"]
        height, width = int(crop["height"]), int(crop["width"])
        resample = Resampling(settings["resample"])
        mean, std = (np.asarray(settings[name], dtype=np.float32).reshape(3) for name in ("image_mean", "image_std"))
        if not all(settings.get(f"do_{step}", True) for step in ("resize", "center_crop", "rescale", "normalize")):
            raise ValueError("a step of CLIP's is switched off")
        if max(height, width) > edge:
            raise ValueError(f"the crop of {height}×{width} is larger than the picture")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"its {IMAGE_PROCESSOR} is not that of a CLIP: {error!r}") from error
    scale = np.float32(settings.get("rescale_factor", 1 / 255))

    def prepare(image: Image) -> torch.Tensor:
        shorter = min(image.size)
        resized = image.resize(tuple(edge * side // shorter for side in image.size), resample)  # type: ignore[arg-type]
        left, top = (resized.width - width) // 2, (resized.height - height) // 2
        pixels = np.asarray(resized.crop((left, top, left + width, top + height)), dtype=np.float32)
        return torch.from_numpy(((pixels * scale - mean) / std).transpose(2, 0, 1).copy())

    return prepare


def _as_open_clip(model: Any) -> torch.nn.Module:
    import torch

    def features(output: Any) -> torch.Tensor:
        return output if isinstance(output, torch.Tensor) else output.pooler_output  # an output object since transformers 5

    class AsOpenClip(torch.nn.Module):
        """The three things that are used of an open_clip model."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        @property
        def logit_scale(self) -> torch.Tensor:
            return self.model.logit_scale

        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            return features(self.model.get_image_features(pixel_values=pixels))

        def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
            return features(self.model.get_text_features(input_ids=tokens))

    return AsOpenClip()
