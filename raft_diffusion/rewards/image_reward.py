"""What people prefer, by ImageReward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.devices import resolve_device
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.quiet import quiet
from raft_core.protocols import RewardInfo
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.types import Sample
from raft_diffusion.rewards.blip import TEXT_FIELDS, Blip, build
from raft_diffusion.rewards.heads import Head, parse_head
from raft_diffusion.rewards.pictures import bad_pictures_unscored, pictures, stacked
from raft_diffusion.rewards.weights import HUB, from_hub, on_hub, read_state

if TYPE_CHECKING:
    import torch

PUBLISHED = "hf-hub:THUDM/ImageReward"
WEIGHTS, CONFIG = "ImageReward.pt", "med_config.json"
TOKENIZER = "google-bert/bert-base-uncased"
TOKENS = 35  # of a prompt, [CLS] and [SEP] included; the model was trained so
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072  # of the raw scores, by its authors


class ImageReward:
    """A BLIP that reads the prompt while it looks at the picture, trained on 137,000 comparisons by experts.

    Its scores are about normally distributed, with mean 0 and deviation 1. A prompt is cut at 35 tokens, a picture to its
    central square.

    Args:
        weights: null for the published files, downloaded from the Hub at first use (1.8 GB); ``hf-hub:OWNER/NAME``; or a
            folder that holds ImageReward.pt and med_config.json.
        tokenizer: folder or Hub name of BERT's tokenizer; null = the folder of the weights if it holds one, else
            ``google-bert/bert-base-uncased``.
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
        device: ``auto`` (this process's accelerator if there is one), ``cpu``, ``cuda`` or ``cuda:N``. The model goes there
            to score and sleeps on the CPU.

    Source: ImageReward (2304.05977) and its released code. Differs: BLIP is that of transformers, with the weights renamed.
    """

    def __init__(
        self,
        weights: str | None = None,
        tokenizer: str | None = None,
        *,
        name: str = "image_reward",
        batch_size: int = 32,
        device: str = "auto",
    ):
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, but must be at least 1")
        self.info = RewardInfo(name=name, scale="about N(0, 1)", batch_size=batch_size, gpu=device != "cpu")
        self.weights = weights or PUBLISHED
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.device = device
        self._model: _Model | None = None

    def check(self) -> list[str]:
        if on_hub(self.weights):
            named = self.weights.removeprefix(HUB).count("/") == 1
            return [] if named else [f"weights is {self.weights!r}, but a model on the Hub is named hf-hub:OWNER/NAME"]
        folder = Path(self.weights).expanduser()
        if not folder.is_dir():
            return [f"there is no folder {folder} with the weights of ImageReward"]
        missing = [file for file in (WEIGHTS, CONFIG) if not (folder / file).is_file()]
        return [f"{folder} is no folder of ImageReward: {', '.join(missing)} missing"] if missing else []

    def load(self) -> None:
        """Load the model.

        Raises:
            ModelError: files that are missing, damaged, or of another layout.
        """
        resolve_device(self.device)
        self._model = self._model or self._load()

    def _load(self) -> _Model:
        if mistakes := self.check():
            raise ModelError(mistakes[0])
        if on_hub(self.weights):
            weights, config = (from_hub(f"{self.weights}/{file}") for file in (WEIGHTS, CONFIG))
        else:
            weights, config = (Path(self.weights).expanduser() / file for file in (WEIGHTS, CONFIG))
        beside = any((weights.parent / file).is_file() for file in ("vocab.txt", "tokenizer.json"))
        return _read(weights, config, self.tokenizer or (str(weights.parent) if beside else TOKENIZER))

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._model is not None:
            self._model.blip.to("cpu")

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        model = self._model = self._model or self._load()
        device = resolve_device(self.device)
        scores = np.empty(len(samples))
        for start in range(0, len(samples), self.batch_size):
            part = slice(start, start + self.batch_size)
            scores[part] = model(samples[part], device).cpu().double().numpy()
        return scores


@dataclass(frozen=True, eq=False)
class _Model:
    """ImageReward, loaded.

    Attributes:
        blip: reads the prompt and looks at the picture.
        head: from [CLS] to the raw score; LAION's layers, no activation in between.
        tokenizer: BERT's.
        preprocess: PIL image → [3, H, W].
    """

    blip: Blip
    head: Head
    tokenizer: Any
    preprocess: Any

    def __call__(self, samples: Sequence[Sample], device: torch.device) -> torch.Tensor:
        """[B] normalised scores, fp32, on the CPU."""
        import torch

        texts = [sample.prompt.text for sample in samples]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
        self.blip.to(device)
        with torch.inference_mode():
            pixels = stacked(pictures(samples), self.preprocess).to(device)
            read = self.blip(pixels, tokens["input_ids"].to(device), tokens["attention_mask"].to(device))  # [B, D]
            return (self.head(read.float().cpu()) - MEAN) / DEVIATION


def _read(weights: Path, config: Path, tokenizer: str) -> _Model:
    ensure_importable()
    from open_clip import image_transform

    state = read_state(weights)
    try:
        blip = build(_part(state, "blip.visual_encoder."), _part(state, "blip.text_encoder."), _text_config(config))
        head = parse_head(_part(state, "mlp."), "v2", weights)
    except ModelError as error:
        raise ModelError(f"{weights} with {config.name} does not hold an ImageReward: {error}") from error
    if head.width != blip.width:
        raise ModelError(f"the head of {weights} reads {head.width} numbers, but its text encoder gives {blip.width}")
    return _Model(blip, head, _tokenizer(tokenizer), image_transform(blip.image_size, is_train=False))


def _part(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _text_config(file: Path) -> Mapping[str, Any]:
    try:
        config = read_object(file, repeated_keys=True)
    except (OSError, Unreadable) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    missing = [name for name in TEXT_FIELDS if name not in config] if isinstance(config, dict) else TEXT_FIELDS
    if missing:
        raise ModelError(f"{file} lacks {', '.join(missing)}")
    return config


def _tokenizer(source: str) -> Any:
    from transformers import BertTokenizer

    try:
        with quiet():
            return BertTokenizer.from_pretrained(source)
    except Exception as error:
        raise ModelError(
            f"BERT's tokenizer {source!r} could not be loaded: {error} (it comes from the Hugging Face Hub at first use; "
            "without a network, give its folder as `tokenizer`)"
        ) from error
