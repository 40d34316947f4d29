"""Any open_clip model, once per process: on the CPU until it is used, its embeddings kept for as long as the pictures live."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core._torchvision import ensure_importable
from raft_core.errors import ModelError, nearest
from raft_diffusion import bundle
from raft_diffusion.rewards.pictures import ByIdentity

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

CONFIG = "open_clip_config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
TEXTS_KEPT = 4096


@dataclass(frozen=True)
class ClipSource:
    """Where a CLIP comes from.

    Attributes:
        model: an open_clip name (``ViT-L-14``), ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``.
        pretrained: a weight tag of open_clip (``openai``) or a weight file; None for folders and the Hub.
    """

    model: str
    pretrained: str | None = None

    def __str__(self) -> str:
        return f"{self.model}/{self.pretrained}" if self.pretrained else self.model

    @classmethod
    def of(cls, model: str, pretrained: str | None) -> ClipSource:
        """From a model and its weights; a folder or a Hub name as either of the two says it all."""
        whole = _whole(pretrained) if pretrained else None
        whole = _whole(model) or whole
        return cls(whole) if whole else cls(model, pretrained)

    @classmethod
    def parse(cls, text: str) -> ClipSource:
        """From one string: ``MODEL/TAG``, a folder, ``bundled:NAME``, ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``."""
        whole = _whole(text)
        if whole:
            return cls(whole)
        model, _, tag = text.partition("/")
        return cls(model, tag or "openai")

    @property
    def folder(self) -> Path | None:
        """The local folder, if it is one."""
        schema, _, rest = self.model.partition(":")
        return Path(rest) if schema == "local-dir" else None

    def check(self) -> list[str]:
        """Mistakes that show without a weight being read."""
        if self.folder is not None:
            return _folder_mistakes(self.folder)
        if self.model.startswith("hf-hub:"):
            return []
        ensure_importable()
        import open_clip

        if self.model not in open_clip.list_models():
            hint = nearest(self.model, open_clip.list_models())
            return [f"{self.model!r} is no open_clip model and no folder with {CONFIG}{hint}"]
        tags = open_clip.list_pretrained_tags_by_model(self.model)
        if self.pretrained in tags or Path(self.pretrained or "").is_file():
            return []
        return [f"{self.pretrained!r} is neither a weight file nor a tag of {self.model}{nearest(str(self.pretrained), tags)}"]


def _whole(text: str) -> str | None:
    """open_clip's name for a folder or a Hub repository, or None when ``text`` is neither."""
    schema, _, rest = text.partition(":")
    if schema == "bundled":
        return f"local-dir:{bundle.FOLDER / rest}"
    if schema == "local-dir":
        return f"local-dir:{Path(rest).expanduser().resolve()}"
    if schema == "hf-hub":
        return text
    folder = Path(text).expanduser()
    # A bare name is a folder only if it looks like one inside: "ViT-L-14" beside a folder of that name is still the model.
    written_as_path = (folder.is_absolute() or text.startswith(".")) and not folder.is_file()
    return f"local-dir:{folder.resolve()}" if written_as_path or (folder / CONFIG).is_file() else None


def _folder_mistakes(folder: Path) -> list[str]:
    if not folder.is_dir():
        known = [p.parent.name for p in bundle.FOLDER.glob(f"*/{CONFIG}")] if folder.parent == bundle.FOLDER else []
        return [f"there is no CLIP folder {folder}{nearest(folder.name, known)}"]
    try:
        if "model_cfg" not in json.loads((folder / CONFIG).read_text()):
            return [f"{folder / CONFIG} has no 'model_cfg': it is not the configuration of an open_clip model"]
    except (OSError, ValueError) as error:
        return [f"{folder} is no open_clip model folder: {CONFIG} cannot be read ({error})"]
    if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        return [f"{folder} holds no weights (looked for {', '.join(WEIGHTS)})"]
    return []


class Clip:
    """A loaded CLIP.

    Args:
        model: an open_clip model on the CPU.
        preprocess: PIL image → [3, H, W].
        tokenize: strings → [N, context] token ids, cut at the context length.
        width: D of the joint embedding.
    """

    def __init__(self, model: Any, preprocess: Callable[[Image], torch.Tensor], tokenize: Callable[..., Any], width: int):
        self.model = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.tokenize = tokenize
        self.width = width
        self._pictures: ByIdentity[torch.Tensor] = ByIdentity()
        self._texts: dict[str, torch.Tensor] = {}

    def images(self, images: Sequence[Image], device: torch.device, batch_size: int) -> torch.Tensor:
        """[N, D] unit-length embeddings, fp32, on the CPU; a picture that was embedded before is not embedded again."""
        import torch

        missing = list({id(image): image for image in images if image not in self._pictures}.values())
        for start in range(0, len(missing), batch_size):
            part = missing[start : start + batch_size]
            for image, row in zip(part, self._embed_images(part, device), strict=True):
                self._pictures[image] = row
        return torch.stack([self._pictures[image] for image in images]) if images else torch.empty(0, self.width)

    def texts(self, texts: Sequence[str], device: torch.device, batch_size: int) -> torch.Tensor:
        """[N, D] unit-length embeddings, fp32, on the CPU; each distinct text is embedded once."""
        import torch

        distinct = list(dict.fromkeys(texts))
        if len(self._texts) + len(distinct) > TEXTS_KEPT:
            self._texts.clear()
        missing = [text for text in distinct if text not in self._texts]
        for start in range(0, len(missing), batch_size):
            part = missing[start : start + batch_size]
            self._texts.update(zip(part, self._embed_texts(part, device), strict=True))
        return torch.stack([self._texts[text] for text in texts]) if texts else torch.empty(0, self.width)

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        self.model.to("cpu")

    def _embed_images(self, images: Sequence[Image], device: torch.device) -> torch.Tensor:
        import torch

        # Decoding and resizing leave the GIL, and would otherwise keep the accelerator waiting.
        with ThreadPoolExecutor(max_workers=min(8, len(images))) as pool:
            batch = torch.stack(list(pool.map(self.preprocess, images)))  # [B, 3, H, W]
        with torch.inference_mode():
            return _unit(self.model.to(device).encode_image(batch.to(device)))

    def _embed_texts(self, texts: Sequence[str], device: torch.device) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            return _unit(self.model.to(device).encode_text(self.tokenize(list(texts)).to(device)))


def _unit(features: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(features.float(), dim=-1).cpu()


_loaded: weakref.WeakValueDictionary[ClipSource, Clip] = weakref.WeakValueDictionary()


def load_clip(source: ClipSource) -> Clip:
    """The CLIP of this source: the one already in the process while anything uses it, else loaded now.

    Raises:
        ModelError: what is wrong with the source, or why it could not be loaded or downloaded.
    """
    clip = _loaded.get(source)
    if clip is None:
        if mistakes := source.check():
            raise ModelError("; ".join(mistakes))
        clip = _loaded[source] = _load(source)
    return clip


def _load(source: ClipSource) -> Clip:
    ensure_importable()
    import open_clip

    # OpenAI's weights (and some others) were trained with QuickGELU. open_clip only warns when its configuration says
    # otherwise, as it does for "ViT-L-14" with "openai", and then gives slightly wrong embeddings.
    tag = open_clip.get_pretrained_cfg(source.model, source.pretrained) if source.pretrained else {}
    try:
        model, preprocess = open_clip.create_model_from_pretrained(  # type: ignore[misc]
            source.model, source.pretrained, force_quick_gelu=bool(tag.get("quick_gelu", False))
        )
        tokenize = open_clip.get_tokenizer(source.model)
        width = int(open_clip.get_model_config(source.model)["embed_dim"])  # type: ignore[index]
    except Exception as error:
        remedy = (
            "mend or replace the folder"
            if source.folder
            else "it comes from the Hugging Face Hub at first use; without a network, give a folder in open_clip's layout"
        )
        raise ModelError(f"the CLIP {str(source)!r} could not be loaded: {error} ({remedy})") from error
    return Clip(model, preprocess, tokenize, width)  # type: ignore[arg-type]
