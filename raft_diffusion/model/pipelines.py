"""Any text-to-image pipeline of diffusers, from a folder or the Hub: what is wrong with one, told before a weight is loaded."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.errors import ModelError, nearest
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.offline import reason
from raft_core.models.quiet import quiet
from raft_diffusion.model import hub
from raft_diffusion.model.folders import INDEX, LIBRARIES, PIPELINES, read_json, weight_mistakes
from raft_diffusion.model.loading import load_part, locate

#: Names under which pipelines have their denoiser.
DENOISERS = ("transformer", "unet")


@dataclass(frozen=True)
class Description:
    """What a pipeline's configuration files say.

    Attributes:
        folder: of the pipeline.
        pipeline: the class of diffusers.
        parts: part → (library, class), of those that are there.
        configs: network → its configuration.
        scheduler: configuration of the scheduler.
    """

    folder: Path
    pipeline: str
    parts: Mapping[str, tuple[str, str]]
    configs: Mapping[str, Mapping[str, Any]]
    scheduler: Mapping[str, Any]

    @property
    def denoiser(self) -> str:
        return next(name for name in DENOISERS if name in self.configs)

    @property
    def text_encoders(self) -> list[str]:
        return [name for name in self.configs if name.startswith("text_encoder")]

    @property
    def tokenizers(self) -> list[str]:
        return [name for name in self.parts if name.startswith("tokenizer")]


def find(model: str) -> Description | None:
    """The description of a model on this machine; None where only the Hub has it.

    Raises:
        ModelError: there is none, or it is no pipeline that can be served; says why.
    """
    place, where = locate(model)
    if place == "file":
        raise ModelError(
            f"model: {model} is a single file, but this policy reads folders and Hub repositories in diffusers' layout; "
            "convert it with the pipeline's from_single_file and save_pretrained"
        )
    return describe(Path(where)) if place == "folder" else None


def fetch(model: str, variant: str | None) -> Description:
    """The description of any model, fetched from the Hub if it is there.

    Raises:
        ModelError: as ``find``, or the Hub cannot be reached.
    """
    if (found := find(model)) is not None:
        return found
    from huggingface_hub import hf_hub_download

    try:
        index = Path(hf_hub_download(model, INDEX))
    except Exception as error:  # of the Hub's client, its HTTP library and the file system
        raise ModelError(f"model: {model} could not be fetched from the Hub: {reason(error, model)}") from error
    _read_index(index.parent)  # refuses what cannot be served before the weights come
    return describe(hub.fetch(model, variant))


def describe(folder: Path) -> Description:
    """Read the configurations of a pipeline's folder.

    Raises:
        ModelError: it is no pipeline that can be served; says why.
    """
    index = _read_index(folder)
    parts = {name: (entry[0], entry[1]) for name, entry in index.items() if _named(entry)}
    configs = {name: read_json(file) for name in parts if (file := folder / name / "config.json").is_file()}
    if lacking := [name for name in ("vae", *DENOISERS) if name in parts and name not in configs]:
        raise ModelError(f"model: {folder / lacking[0]} is incomplete: config.json is missing")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file():
        raise ModelError(f"model: {folder} is incomplete: scheduler/{scheduler.name} is missing")
    return Description(folder, index["_class_name"], parts, configs, read_json(scheduler))


def mistakes(description: Description, variant: str | None) -> list[str]:
    """What is wrong with the weights, told from the headers of their files."""
    return [found for name in description.configs for found in weight_mistakes(description.folder / name, variant)]


def _read_index(folder: Path) -> dict[str, Any]:
    file = folder / INDEX
    if not file.is_file():
        raise ModelError(f"model: {folder} is no pipeline: {INDEX} is missing")
    index = read_json(file)
    name = index.get("_class_name")
    if name in PIPELINES:
        raise ModelError(f"model: {folder} is a {name}: use the policy StableDiffusion, which is made for it")
    parts = {part: entry for part, entry in index.items() if _named(entry)}
    if strange := sorted(part for part, entry in parts.items() if entry[0] not in LIBRARIES):
        raise ModelError(
            f"model: {file} takes its {strange[0]} from {parts[strange[0]][0]!r}, but only diffusers and transformers are "
            "known; code that comes with a model is not run"
        )
    if not isinstance(name, str) or not name.endswith("Pipeline"):
        raise ModelError(f"model: {file} names no pipeline of diffusers, but {name!r}")
    if "transformer_2" in parts:
        raise ModelError(
            f"model: {name} of {folder} has two denoisers (transformer_2), one for each half of the way: only one can be "
            "trained"
        )
    if lacking := [what for what, there in _needs(parts).items() if not there]:
        raise ModelError(f"model: {folder} holds a {name}, which is no text-to-image model: it has no {lacking[0]}")
    return index


def _needs(parts: Mapping[str, Any]) -> dict[str, bool]:
    return {
        "denoiser (transformer or unet)": any(name in parts for name in DENOISERS),
        "vae": "vae" in parts,
        "scheduler": "scheduler" in parts,
        "text encoder": any(name.startswith("text_encoder") for name in parts),
    }


def _named(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(item, str) for item in entry)


def pipeline_class(name: str) -> Any:
    """The class of diffusers.

    Raises:
        ModelError: diffusers has none of this name, or it draws by something else than a prompt.
    """
    ensure_importable()
    import diffusers

    cls = getattr(diffusers, name, None)
    if cls is None:
        known = [known for known in dir(diffusers) if known.endswith("Pipeline")]
        raise ModelError(f"model: this diffusers ({diffusers.__version__}) has no {name}{nearest(name, known)}")
    if not hasattr(cls, "encode_prompt"):
        raise ModelError(f"model: {name} has no encode_prompt, by which the text-to-image pipelines of diffusers read prompts")
    return cls


def load_pipeline(
    description: Description, dtype: Any, variant: str | None, *, without: Sequence[str] = (), quantization: Any = None
) -> Any:
    """The pipeline on the CPU, its weights in ``dtype``.

    Args:
        description: of the pipeline.
        dtype: of the weights.
        variant: of the weight files.
        without: networks that are left out.
        quantization: network → diffusers' or transformers' quantisation configuration.

    Raises:
        ModelError: it cannot be loaded; names the part.
    """
    cls = pipeline_class(description.pipeline)
    parts = {
        name: load_network(description, name, dtype, variant, quantization)
        for name in description.configs
        if name not in without
    }
    with quiet():
        try:
            pipe = cls.from_pretrained(str(description.folder), **parts, **dict.fromkeys(without))
        except Exception as error:  # whatever a file of someone else's makes diffusers and transformers stumble over
            raise ModelError(f"model: {description.folder} could not be loaded: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_network(description: Description, name: str, dtype: Any, variant: str | None, quantization: Any = None) -> Any:
    """One network of the pipeline.

    Raises:
        ModelError: its files are damaged.
    """
    extra = {"quantization_config": quantization[name]} if quantization and name in quantization else {}
    with quiet():
        return load_part(description.folder / name, description.parts[name], dtype, variant, **extra)


def load_tokenizers(description: Description) -> list[Any]:
    """The pipeline's tokenizers, without its weights.

    Raises:
        ModelError: one cannot be read.
    """
    ensure_importable()
    found = []
    for name in description.tokenizers:
        library, cls = description.parts[name]
        try:
            with quiet():
                found.append(getattr(importlib.import_module(library), cls).from_pretrained(str(description.folder / name)))
        except Exception as error:  # whatever a file of someone else's makes transformers stumble over
            raise ModelError(f"model: {description.folder / name} could not be loaded: {error}") from error
    return found
