"""Rewards of pictures that are learned from preferences: a head on CLIP embeddings, and LoRA on the picture's encoder."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.devices import resolve_device
from raft_core.preferences.preference import Item
from raft_diffusion.rewards.clip import Clip, ClipSource, load_clip
from raft_diffusion.rewards.embeddings import EmbeddingCache, clip_key, default_cache, picture_key
from raft_diffusion.rewards.pictures import rgb

if TYPE_CHECKING:
    import torch

CLIP = "ViT-L-14/openai"
CHUNK = 256  # pictures decoded at a time


class ClipLearner:
    """A small head on the CLIP embeddings of a picture and its prompt; with LoRA the picture's encoder learns too.

    Without LoRA every picture is embedded once and training takes seconds.

    Args:
        clip: as ``MODEL/TAG``, a folder in open_clip's layout, ``bundled:NAME`` or ``hf-hub:OWNER/NAME``.
        head: ``linear``, or ``mlp`` with one hidden layer.
        hidden: width of the hidden layer.
        see_prompt: whether the head sees the prompt too, and so can learn what fits it.
        lora_rank: rank of LoRA on the encoder's linear layers and convolutions; 0 = the encoder stays as it is.
        cache: file of embeddings that are kept across trainings; ``auto`` for one in the user's cache folder, null for none.
        batch_size: pictures per forward pass.
        seed: of the initial weights.
    """

    modality: ClassVar[str] = "image"

    def __init__(
        self,
        clip: str = CLIP,
        head: Literal["linear", "mlp"] = "mlp",
        hidden: int = 256,
        see_prompt: bool = True,
        lora_rank: int = 0,
        cache: str | None = "auto",
        batch_size: int = 64,
        seed: int = 0,
    ):
        mistakes = [f"head is {head!r}, but must be 'linear' or 'mlp'"] if head not in ("linear", "mlp") else []
        for name, value, least in (("hidden", hidden, 1), ("batch_size", batch_size, 1), ("lora_rank", lora_rank, 0)):
            if value < least:
                mistakes.append(f"{name} is {value}, but must be at least {least}")
        if mistakes:
            raise ConfigError(mistakes)
        self.source = ClipSource.parse(clip)
        self.clip = clip
        self.head = head
        self.hidden = hidden
        self.see_prompt = see_prompt
        self.lora_rank = lora_rank
        self.cache = None if cache is None else EmbeddingCache(default_cache() if cache == "auto" else Path(cache).expanduser())
        self.batch_size = batch_size
        self.seed = seed

    @property
    def lr(self) -> float:
        """The learning rate to begin with."""
        return 2e-4 if self.lora_rank else 1e-3

    def settings(self) -> dict[str, Any]:
        # A folder is named by where it is. Embeddings are kept for training alone: what is scored later rarely comes again.
        bundled = self.clip.startswith("bundled:")
        clip = str(self.source.folder) if self.source.folder is not None and not bundled else self.clip
        return {
            "clip": clip,
            "head": self.head,
            "hidden": self.hidden,
            "see_prompt": self.see_prompt,
            "lora_rank": self.lora_rank,
            "cache": None,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    def check(self) -> list[str]:
        return self.source.check()

    def load(self, device: str = "auto") -> None:
        """Load the CLIP and make the head, and the LoRA on a copy of the encoder.

        Raises:
            ModelError: the CLIP cannot be loaded, or has no layer that LoRA could be put on.
        """
        import torch

        self._device = resolve_device(device)
        self._clip: Clip = load_clip(self.source)
        self._key: str | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self._head = build_head(self.head, self._clip.width * (3 if self.see_prompt else 1), self.hidden)
            self._tower = with_lora(self._clip.model, self.lora_rank, str(self.source)) if self.lora_rank else None
        self._to(self._device)

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        found = {f"head.{name}": parameter for name, parameter in self._head.named_parameters()}
        if self._tower is not None:
            found |= {f"clip.{name}": p for name, p in self._tower.named_parameters() if p.requires_grad}
        return found

    def encode(self, items: Sequence[Item]) -> list[Any]:
        """Per item (picture, prompt's embedding [D]); the picture is its embedding [D], or with LoRA still a picture."""
        import torch

        texts = [item.prompt for item in items]
        prompts = self._clip.texts(texts, self._device, self.batch_size) if self.see_prompt else [torch.empty(0)] * len(items)
        if self._tower is not None:
            return [(item, prompt) for item, prompt in zip(items, prompts, strict=True)]
        return list(zip(self._embedded([item.output for item in items]), prompts, strict=True))

    def __call__(self, encoded: Sequence[Any]) -> torch.Tensor:
        import torch

        self._to(self._device)
        outputs, prompts = zip(*encoded, strict=True)
        pictures = torch.stack(outputs) if self._tower is None else self._trained_embeddings(outputs)
        return self._head(features(pictures.to(self._device), torch.stack(prompts).to(self._device)))[:, 0]

    def sleep(self) -> None:
        self._clip.sleep()
        self._to("cpu")

    def _to(self, device: Any) -> None:
        self._head.to(device)
        if self._tower is not None:
            self._tower.to(device)

    def _trained_embeddings(self, items: Sequence[Item]) -> torch.Tensor:
        """[N, D] unit-length embeddings by the encoder that learns, with gradients."""
        import torch

        assert self._tower is not None
        with ThreadPoolExecutor(max_workers=min(8, len(items))) as pool:
            batch = torch.stack(list(pool.map(lambda item: self._clip.preprocess(rgb(item.loaded())), items)))
        embedding = self._tower(batch.to(self._device))
        embedding = embedding[0] if isinstance(embedding, tuple) else embedding  # CoCa's tower gives its tokens too
        return torch.nn.functional.normalize(embedding.float(), dim=-1)

    def _embedded(self, outputs: Sequence[Any]) -> list[torch.Tensor]:
        """[D] each, from the cache where they are there."""
        import torch

        if self.cache is None:
            return [row for start in range(0, len(outputs), CHUNK) for row in self._embed(outputs[start : start + CHUNK])]
        self._key = self._key or clip_key(self._clip)
        keys = [picture_key(output) for output in outputs]
        known = {key: torch.from_numpy(vector.copy()) for key, vector in self.cache.get(self._key, list(set(keys))).items()}
        missing = list({key: output for key, output in zip(keys, outputs, strict=True) if key not in known}.items())
        for start in range(0, len(missing), CHUNK):
            names, pictures = zip(*missing[start : start + CHUNK], strict=True)
            new = dict(zip(names, self._embed(pictures), strict=True))
            self.cache.put(self._key, {key: row.numpy() for key, row in new.items()})
            known |= new
        return [known[key] for key in keys]

    def _embed(self, outputs: Sequence[Any]) -> torch.Tensor:
        """[N, D] by the frozen CLIP."""
        pictures = [rgb(Item("", output).loaded()) for output in outputs]
        return self._clip.images(pictures, self._device, self.batch_size).clone()


def features(picture: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """[N, 3·D] what the head reads: picture, prompt and their product, each of about unit size per element.

    Without a prompt, [N, 0], it is the picture alone, [N, D].
    """
    import torch

    unit = picture.shape[1] ** 0.5
    if not prompt.shape[1]:
        return unit * picture
    return torch.cat([unit * picture, unit * prompt, unit**2 * picture * prompt], dim=1)


def build_head(kind: str, width: int, hidden: int) -> torch.nn.Module:
    """[N, width] → [N, 1], initialised from torch's generator as it stands."""
    import torch

    if kind == "linear":
        return torch.nn.Linear(width, 1)
    return torch.nn.Sequential(torch.nn.Linear(width, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, 1))


def with_lora(model: torch.nn.Module, rank: int, name: str) -> torch.nn.Module:
    """A copy of a CLIP's picture encoder with LoRA on its layers; the original is shared with other rewards and stays as it is.

    Raises:
        ModelError: it is not open_clip's, or has no layer of a kind that LoRA knows.
    """
    from peft import LoraConfig, inject_adapter_in_model

    tower = getattr(model, "visual", None)
    if tower is None:
        raise ModelError(f"LoRA needs a CLIP in open_clip's layout, and {name} is in another: use lora_rank 0, or that layout")
    targets = list(lora_targets(tower))
    if not targets:
        raise ModelError(f"the picture encoder of {name} has no linear layer or convolution for LoRA: use lora_rank 0")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    return inject_adapter_in_model(config, copy.deepcopy(tower).float()).eval()  # type: ignore[arg-type]


def lora_targets(tower: torch.nn.Module) -> Iterator[str]:
    """Names of linear layers and ungrouped convolutions that are called as modules.

    Attention that reads its layers' weights and never calls them (torch's own, and CLIP's pooling) would pass LoRA by.
    """
    import torch

    silent = [
        name
        for name, module in tower.named_modules()
        if isinstance(module, torch.nn.MultiheadAttention) or type(module).__name__ in ("AttentionPool2d", "AttentionalPooler")
    ]
    for name, module in tower.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in silent)
        fits = isinstance(module, torch.nn.Linear) or (isinstance(module, torch.nn.Conv2d) and module.groups == 1)
        if fits and not inside:
            yield name
