"""Stable Diffusion pipelines from the Hub, a folder, one file, or the package."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from raft_core.errors import ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.offline import reason
from raft_core.models.quiet import quiet
from raft_diffusion.model import bundle, hub, single_file
from raft_diffusion.model.folders import (
    NETWORKS,
    PICKLES,
    Configs,
    config_mistakes,
    folder_mistakes,
    is_xl,
    networks,
    pick_variant,
    read_configs,
    read_index,
)

Place = Literal["folder", "file", "hub"]


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


def mistakes(place: Place, where: str, variant: str | None) -> list[str]:
    """What is wrong with a model on this machine, told without loading a weight; of the Hub nothing is known."""
    if place == "folder":
        return folder_mistakes(Path(where), variant)
    if place == "file":
        folder = single_file.config_folder(Path(where))
        return [*single_file.file_mistakes(Path(where)), *(config_mistakes(folder) if folder else ())]
    return []


def find_configs(place: Place, where: str) -> Configs | None:
    """The configurations of a model on this machine; None where only the Hub has them.

    Raises:
        ModelError: one that cannot be read.
    """
    folder = {"folder": Path(where), "file": single_file.config_folder(Path(where)), "hub": None}[place]
    return read_configs(folder) if folder else None


def fetch_configs(model: str, variant: str | None) -> Configs | None:
    """The configurations of any model, from the Hub too; None for a single file that has none beside it.

    Raises:
        ModelError: something is wrong with the model, told before a weight is loaded.
    """
    place, where = locate(model)
    if place == "hub":
        place, where = "folder", str(hub.fetch_configs(where))
        _refuse(config_mistakes(Path(where)))
    else:
        _refuse(mistakes(place, where, variant))
    return find_configs(place, where)


def load_pipeline(model: str, dtype: Any, *, variant: str | None = None) -> Any:
    """The pipeline on the CPU, its weights in ``dtype``, without safety checker or watermark.

    Raises:
        ModelError: nothing that can be loaded is there.
    """
    ensure_importable()
    place, where = locate(model)
    if place == "hub":
        place, where = "folder", str(hub.fetch(where, variant))
    _refuse(mistakes(place, where, variant))
    with quiet():
        pipe = _load_file(Path(where), dtype) if place == "file" else _load_folder(Path(where), dtype, variant)
    empty = [name for part in networks_of(pipe) for name, value in part.named_parameters() if value.is_meta]
    _refuse([f"model: {where} lacks {len(empty)} weights, such as {empty[0]}: it is damaged"] if empty else [])
    return pipe


def _refuse(found: Sequence[str]) -> None:
    if found:
        raise ModelError("; ".join(found))


def networks_of(pipe: Any) -> list[Any]:
    """The networks of a pipeline, its VAE among them."""
    return [part for name in NETWORKS if (part := getattr(pipe, name, None)) is not None]


def _load_file(path: Path, dtype: Any) -> Any:
    import diffusers

    cls = diffusers.StableDiffusionXLPipeline if single_file.is_xl_file(path) else diffusers.StableDiffusionPipeline
    folder = single_file.config_folder(path)
    beside: dict[str, Any] = {"config": str(folder), "local_files_only": True} if folder else {}
    try:
        return cls.from_single_file(str(path), dtype=dtype, **beside)
    except Exception as error:  # whatever a file of someone else's makes diffusers and transformers stumble over
        raise ModelError(f"model: {path} could not be loaded: {reason(error, _origin(path))}") from error


def _load_folder(folder: Path, dtype: Any, variant: str | None) -> Any:
    """The pipeline of a folder, its networks one by one, so that it can be told which of them is damaged."""
    import diffusers

    index = read_index(folder)
    parts = {part: load_part(folder / part, index[part], dtype, variant) for part in networks(index)}
    # The safety checker and the watermark are no part of the sampler.
    extras = {"add_watermarker": False} if is_xl(index) else {"safety_checker": None, "requires_safety_checker": False}
    try:
        return diffusers.DiffusionPipeline.from_pretrained(str(folder), **parts, **extras)
    except Exception as error:  # whatever a file of someone else's makes diffusers and transformers stumble over
        raise ModelError(f"model: {folder} could not be loaded: {error}") from error


def load_part(part: Path, named: Sequence[str], dtype: Any, variant: str | None, **extra: Any) -> Any:
    """One network of a pipeline's folder, whole.

    Args:
        part: its folder.
        named: library and class.
        dtype: of its weights.
        variant: of its weight files, where it has that.
        extra: further arguments of ``from_pretrained``.

    Raises:
        ModelError: another library's, or damaged.
    """
    library, name = named
    if library not in ("diffusers", "transformers"):
        raise ModelError(f"model: {part} is a {name} of {library!r}, but only diffusers and transformers are supported")
    try:
        module, info = getattr(importlib.import_module(library), name).from_pretrained(
            str(part),
            dtype=dtype,
            variant=pick_variant(part, variant),
            use_safetensors=True,
            output_loading_info=True,
            **extra,
        )
    except Exception as error:  # whatever a file of someone else's makes diffusers and transformers stumble over
        raise ModelError(f"model: {part} could not be loaded: its weights or its config.json are damaged: {error}") from error
    if missing := sorted(info["missing_keys"]):  # the libraries would make random ones up
        raise ModelError(
            f"model: the weights in {part} lack {len(missing)} tensors that its config.json asks for, such as {missing[0]}: "
            "one of the two is damaged, or of another model"
        )
    return module


def load_tokenizers(model: str) -> list[Any]:
    """The pipeline's tokenizers without its weights; for a single file those of its configuration.

    Raises:
        ModelError: the model has none.
    """
    ensure_importable()
    from transformers import CLIPTokenizer

    place, where = locate(model)
    if place == "file":
        where = str(single_file.config_folder(Path(where)) or _origin(Path(where)))
    try:
        with quiet():
            tokenizers = [CLIPTokenizer.from_pretrained(where, subfolder="tokenizer")]
            if _has_second_tokenizer(where):
                tokenizers.append(CLIPTokenizer.from_pretrained(where, subfolder="tokenizer_2"))
    except Exception as error:  # whatever a file of someone else's makes transformers stumble over
        raise ModelError(f"model: the tokenizer of {model} could not be loaded: {reason(error, where)}") from error
    return tokenizers


def _origin(path: Path) -> str:
    """Whose configuration a single file has."""
    return single_file.ORIGIN[single_file.is_xl_file(path)]


def _has_second_tokenizer(where: str) -> bool:
    import diffusers

    return "tokenizer_2" in diffusers.DiffusionPipeline.load_config(where)
