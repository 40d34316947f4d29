"""Any CLIP of open_clip or transformers, once per process; asleep on the CPU, its embeddings kept while the pictures live."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raft_core.errors import ModelError, nearest
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.offline import reason
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_diffusion.model import bundle
from raft_diffusion.rewards import hf_clip
from raft_diffusion.rewards.pictures import ByIdentity, stacked

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

CONFIG = "open_clip_config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
TEXTS_KEPT = 4096

Resize = Literal["shortest", "longest"]


@dataclass(frozen=True)
class ClipSource:
    """Where a CLIP comes from.

    Attributes:
        model: an open_clip name (``ViT-L-14``), ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME`` in open_clip's layout, or
            ``transformers:`` and a folder or a name on the Hub in that of transformers.
        pretrained: a weight tag of open_clip (``openai``) or a weight file; None for folders and the Hub.
        resize: the picture's side that is fitted to the model's input: the shortest, and the rest is cropped, or the longest,
            and the rest is padded with black; None = as the model's own configuration says.
        processor: for transformers, folder or Hub name of the image processor and tokenizer; None = the model's own.
    """

    model: str
    pretrained: str | None = None
    resize: Resize | None = None
    processor: str | None = None

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
        """From one string: ``MODEL/TAG``, a folder, ``bundled:NAME``, ``local-dir:…``, ``hf-hub:…`` or ``transformers:…``."""
        whole = _whole(text)
        if whole:
            return cls(whole)
        model, _, tag = text.partition("/")
        return cls(model, tag or "openai")

    @property
    def folder(self) -> Path | None:
        """The local folder, if it is one."""
        schema, _, rest = self.model.partition(":")
        return Path(rest) if schema == "local-dir" or (schema == "transformers" and Path(rest).is_absolute()) else None

    @property
    def of_transformers(self) -> bool:
        """Whether it is in the layout of transformers."""
        return self.model.startswith("transformers:")

    def check(self) -> list[str]:
        """Mistakes that show without a weight being read."""
        if self.of_transformers:
            return self._check_transformers()
        if self.folder is not None:
            return _folder_mistakes(self.folder)
        if self.model.startswith("hf-hub:"):
            return []
        if mistakes := model_mistakes(self.model):
            return mistakes
        import open_clip

        tags = open_clip.list_pretrained_tags_by_model(self.model)
        if self.pretrained in tags or Path(self.pretrained or "").is_file():
            return []
        return [f"{self.pretrained!r} is neither a weight file nor a tag of {self.model}{nearest(str(self.pretrained), tags)}"]

    def _check_transformers(self) -> list[str]:
        mistakes = hf_clip.folder_mistakes(self.folder) if self.folder else []
        processor = Path(self.processor).expanduser() if self.processor else self.folder
        # A relative name that is no folder is one on the Hub.
        local = processor is not None and (processor.is_absolute() or processor.is_dir())
        return mistakes + (hf_clip.processor_mistakes(processor) if local and processor else [])


def model_mistakes(name: str) -> list[str]:
    """A name that open_clip does not know as an architecture."""
    ensure_importable()
    import open_clip

    if name in open_clip.list_models():
        return []
    return [f"{name!r} is no open_clip model and no folder with {CONFIG}{nearest(name, open_clip.list_models())}"]


def _whole(text: str) -> str | None:
    """open_clip's name for a folder or a Hub repository, or None when ``text`` is neither."""
    schema, _, rest = text.partition(":")
    if schema == "bundled":
        return f"local-dir:{bundle.FOLDER / rest}"
    if schema == "local-dir":
        return f"local-dir:{Path(rest).expanduser().resolve()}"
    if schema == "hf-hub":
        return text
    if schema == "transformers":
        named = Path(rest).expanduser()
        return f"transformers:{named.resolve() if named.is_dir() or named.is_absolute() else rest}"
    folder = Path(text).expanduser()
    if hf_clip.is_folder(folder) and not (folder / CONFIG).is_file():
        return f"transformers:{folder.resolve()}"
    # A bare name is a folder only if it looks like one inside: "ViT-L-14" beside a folder of that name is still the model.
    written_as_path = (folder.is_absolute() or text.startswith(".")) and not folder.is_file()
    return f"local-dir:{folder.resolve()}" if written_as_path or (folder / CONFIG).is_file() else None


def _folder_mistakes(folder: Path) -> list[str]:
    if not folder.is_dir():
        known = [p.parent.name for p in bundle.FOLDER.glob(f"*/{CONFIG}")] if folder.parent == bundle.FOLDER else []
        return [f"there is no CLIP folder {folder}{nearest(folder.name, known)}"]
    try:
        if "model_cfg" not in read_object(folder / CONFIG, repeated_keys=True):
            return [f"{folder / CONFIG} has no 'model_cfg': it is not the configuration of an open_clip model"]
    except (OSError, Unreadable) as error:
        return [f"{folder} is no open_clip model folder: {CONFIG} cannot be read ({error})"]
    if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        return [f"{folder} holds no weights (looked for {', '.join(WEIGHTS)})"]
    return []


class Clip:
    """A loaded CLIP.

    Args:
        model: an open_clip model on the CPU, or what looks like one.
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

    @property
    def scale(self) -> float:
        """The learned factor of cosines: exp(logit_scale)."""
        return float(self.model.logit_scale.detach().cpu().double().exp())

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

        batch = stacked(images, self.preprocess)  # [B, 3, H, W]
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
    try:
        return Clip(*(_from_transformers(source) if source.of_transformers else _from_open_clip(source)))
    except Exception as error:
        if source.folder:
            remedy = "mend or replace the folder"
        elif Path(source.pretrained or "").is_file():
            remedy = f"is {source.pretrained} a weight file of {source.model}?"
        else:
            remedy = "it comes from the Hugging Face Hub at first use; without a network, give a folder in the same layout"
        why = reason(error, _repository(source))
        raise ModelError(f"the CLIP {str(source)!r} could not be loaded: {why} ({remedy})") from error


def _repository(source: ClipSource) -> str:
    """The repository on the Hub that a CLIP comes from, as far as it is known."""
    _, _, name = source.model.partition(":")
    if name:
        return name
    import open_clip

    named = open_clip.get_pretrained_cfg(source.model, source.pretrained or "").get("hf_hub", "")
    return "/".join(named.split("/")[:2]) or source.model


def _from_open_clip(source: ClipSource) -> tuple[Any, Any, Any, int]:
    ensure_importable()
    import open_clip

    # OpenAI's weights (and some others) were trained with QuickGELU. open_clip only warns when its configuration says
    # otherwise, as it does for "ViT-L-14" with "openai", and then gives slightly wrong embeddings.
    tag = open_clip.get_pretrained_cfg(source.model, source.pretrained) if source.pretrained else {}
    model, preprocess = open_clip.create_model_from_pretrained(  # type: ignore[misc]
        source.model,
        source.pretrained,
        force_quick_gelu=bool(tag.get("quick_gelu", False)),
        image_resize_mode=source.resize,
    )
    tokenize = open_clip.get_tokenizer(source.model)
    return model, preprocess, tokenize, int(open_clip.get_model_config(source.model)["embed_dim"])  # type: ignore[index]


def _from_transformers(source: ClipSource) -> tuple[Any, Any, Any, int]:
    name = source.model.removeprefix("transformers:")
    return hf_clip.load(name, source.processor or name)
