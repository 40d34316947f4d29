"""Stable Diffusion pipelines from the Hub, a folder, one file, or the package."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Literal

from raft_core._torchvision import ensure_importable
from raft_core.errors import ModelError
from raft_diffusion import bundle
from raft_diffusion.quiet import quiet

Place = Literal["folder", "file", "hub"]

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
#: A weight of SDXL's second text encoder in the original single-file layout.
XL_KEY_PREFIX = "conditioner.embedders.1."
#: Whose configuration a single file has, by whether it is SDXL.
_ORIGIN = {False: "stable-diffusion-v1-5/stable-diffusion-v1-5", True: "stabilityai/stable-diffusion-xl-base-1.0"}


def locate(model: str) -> tuple[Place, str]:
    """Where ``model`` is, in words and as a path or Hub id.

    Raises:
        ModelError: a bundled model that does not exist, a path that does not, or a pickle.
    """
    if model.startswith(bundle.PREFIX):
        return "folder", str(bundle.resolve(model))
    path = Path(model).expanduser()
    if path.suffix in PICKLES:
        raise ModelError(
            f"model: {model} is a pickle, which can run code when it is loaded; use its .safetensors version, "
            "or convert it with the scripts of diffusers"
        )
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"model: {model} is a file, but no .safetensors file")
        return "file", str(path)
    if path.is_dir():
        return "folder", str(path)
    looks_like_path = (
        path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1 or path.suffix == ".safetensors"
    )
    if looks_like_path:
        raise ModelError(
            f"model: {model} does not exist; give a folder, a .safetensors file, ORGANISATION/NAME on the Hub, "
            f"or one of {', '.join(bundle.PREFIX + name for name in bundle.names()) or 'the bundled models'}"
        )
    return "hub", model


def folder_mistakes(folder: Path) -> list[str]:
    """What is wrong with a pipeline's folder, as far as its file names and configuration tell."""
    index = folder / "model_index.json"
    if not index.is_file():
        return [f"model: {folder} is no pipeline: model_index.json is missing"]
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        return [f"model: {index} is no JSON: {error}"]
    name = parts.get("_class_name")
    if name not in PIPELINES:
        return [f"model: {folder} holds a {name}, but only {' and '.join(PIPELINES)} are supported"]
    networks = [part for part in ("unet", "vae", "text_encoder", "text_encoder_2") if (parts.get(part) or [None])[0]]
    return [mistake for part in networks for mistake in _part_mistakes(folder / part)]


def _part_mistakes(folder: Path) -> list[str]:
    if not (folder / "config.json").is_file():
        return [f"model: {folder} is incomplete: config.json is missing"]
    if any(folder.glob("*.safetensors")):
        return []
    pickles = [path.name for path in folder.iterdir() if path.suffix in PICKLES]
    if pickles:
        return [
            f"model: {folder} has pickled weights ({pickles[0]}), which can run code when they are loaded; convert them with "
            "pipeline.save_pretrained(folder, safe_serialization=True) on a machine where you trust them"
        ]
    return [f"model: {folder} has no weights (*.safetensors)"]


def read_config(part: Path) -> dict[str, Any]:
    """The configuration of one part of a pipeline's folder, without loading a weight."""
    return json.loads((part / "config.json").read_text(encoding="utf-8"))


def load_pipeline(model: str, dtype: Any, *, variant: str | None = None) -> Any:
    """The pipeline on the CPU, its weights in ``dtype``, without safety checker or watermark.

    Raises:
        ModelError: nothing that can be loaded is there.
    """
    ensure_importable()
    import diffusers

    place, where = locate(model)
    if place == "folder" and (mistakes := folder_mistakes(Path(where))):
        raise ModelError("; ".join(mistakes))
    try:
        with quiet():
            if place == "file":
                cls = diffusers.StableDiffusionXLPipeline if is_xl_file(Path(where)) else diffusers.StableDiffusionPipeline
                return cls.from_single_file(where, dtype=dtype, **_single_file_arguments(Path(where)))
            return diffusers.DiffusionPipeline.from_pretrained(
                where, dtype=dtype, variant=variant, use_safetensors=True, **_without_extras(where)
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"model: {model} could not be loaded: {error}") from error


def _without_extras(where: str) -> dict[str, Any]:
    """Arguments that leave out what is no part of the sampler: the safety checker, the watermark.

    Raises:
        ModelError: the pipeline is of a class that is not supported.
    """
    import diffusers

    index: Any = diffusers.DiffusionPipeline.load_config(where)
    name = index["_class_name"]
    if name not in PIPELINES:
        raise ModelError(f"model: {where} holds a {name}, but only {' and '.join(PIPELINES)} are supported")
    return {"add_watermarker": False} if "XL" in name else {"safety_checker": None, "requires_safety_checker": False}


def _single_file_arguments(path: Path) -> dict[str, Any]:
    """A folder beside the file, called as the file without its suffix, may hold its configuration; else the Hub is asked."""
    folder = path.with_suffix("")
    return {"config": str(folder), "local_files_only": True} if (folder / "model_index.json").is_file() else {}


def is_xl_file(path: Path) -> bool:
    """Whether a single file holds SDXL, told from its header alone.

    Raises:
        ModelError: the file is no safetensors file.
    """
    return any(key.startswith(XL_KEY_PREFIX) for key in header(path))


def header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: names, shapes, dtypes, and ``__metadata__``.

    Raises:
        ModelError: the file is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > 100_000_000:
                raise ValueError("its header would be larger than 100 MB")
            return json.loads(file.read(size))
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(f"{path} is no safetensors file: {error}") from error


def load_tokenizers(model: str) -> list[Any]:
    """The pipeline's tokenizers without its weights; for a single file those of its configuration.

    Raises:
        ModelError: the model has none.
    """
    ensure_importable()
    from transformers import CLIPTokenizer

    place, where = locate(model)
    if place == "file":
        where = _single_file_arguments(Path(where)).get("config", _ORIGIN[is_xl_file(Path(where))])
    try:
        with quiet():
            tokenizers = [CLIPTokenizer.from_pretrained(where, subfolder="tokenizer")]
            if _has_second_tokenizer(where):
                tokenizers.append(CLIPTokenizer.from_pretrained(where, subfolder="tokenizer_2"))
    except (OSError, ValueError) as error:
        raise ModelError(f"model: the tokenizer of {model} could not be loaded: {error}") from error
    return tokenizers


def _has_second_tokenizer(where: str) -> bool:
    import diffusers

    return "tokenizer_2" in diffusers.DiffusionPipeline.load_config(where)
