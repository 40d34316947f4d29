"""Pipelines in folders: what is wrong with one, told from its configuration and the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from raft_core.errors import ModelError, nearest
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_diffusion.model.weights_file import check_whole

INDEX = "model_index.json"
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
LIBRARIES = ("diffusers", "transformers")
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
#: What is read of a configuration before anything is loaded.
_FIELDS: Mapping[str, Mapping[str, type]] = {
    "unet": {"in_channels": int, "down_block_types": list},
    "vae": {"block_out_channels": list, "latent_channels": int},
}


@dataclass(frozen=True)
class Configs:
    """Configurations of a pipeline's parts, by which sizes and schedulers are checked before a weight is loaded."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelError: it cannot be read, or holds something else; names the file.
    """
    try:
        return read_object(file, repeated_keys=True)  # as the libraries read it
    except (OSError, Unreadable) as error:
        raise ModelError(f"model: {file} is no readable JSON: {error}") from error


def read_index(folder: Path) -> dict[str, Any]:
    """What a pipeline's folder says it consists of.

    Raises:
        ModelError: no pipeline, another than Stable Diffusion's, or one that lacks a part.
    """
    file = folder / INDEX
    if not file.is_file():
        raise ModelError(f"model: {folder} is no pipeline: {INDEX} is missing")
    index = read_json(file)
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise ModelError(
            f"model: {folder} holds a {name}, but only {' and '.join(PIPELINES)} are supported; use the policy TextToImage for "
            "other text-to-image pipelines"
        )
    needed = {*NETWORKS, "tokenizer", "scheduler"} - (set() if is_xl(index) else {"text_encoder_2"})
    if lacking := sorted(part for part in needed if not _named(index.get(part))):
        raise ModelError(f"model: {file} names no library and class for {', '.join(lacking)}")
    if strange := sorted(part for part in needed if index[part][0] not in LIBRARIES):  # loading would import whatever is named
        raise ModelError(
            f"model: {file} names the library {index[strange[0]][0]!r} for {strange[0]}, but {LIBRARIES} are known"
        )
    return index


def _named(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(item, str) for item in entry)


def is_xl(index: Mapping[str, Any]) -> bool:
    """Whether this is SDXL."""
    return "XL" in index["_class_name"]


def is_xl_unet(unet: Mapping[str, Any]) -> bool:
    """Whether a U-Net of this configuration is told the picture's size, as SDXL's is."""
    return unet.get("addition_embed_type") == "text_time"


def networks(index: Mapping[str, Any]) -> list[str]:
    """The parts that have weights and are used."""
    return [part for part in NETWORKS if _named(index.get(part))]


def config_files(index: Mapping[str, Any]) -> list[str]:
    """The configuration files of a pipeline, relative to its folder."""
    return [*(f"{part}/config.json" for part in networks(index)), "scheduler/scheduler_config.json"]


def read_configs(folder: Path) -> Configs:
    """The configurations, of a folder without mistakes in them.

    Raises:
        ModelError: a file that cannot be read.
    """
    return Configs(
        read_json(folder / "unet/config.json"),
        read_json(folder / "vae/config.json"),
        read_json(folder / "scheduler/scheduler_config.json"),
    )


def config_mistakes(folder: Path) -> list[str]:
    """What is wrong with a pipeline's configuration."""
    try:
        index = read_index(folder)
    except ModelError as error:
        return [str(error)]
    found = [mistake for file in config_files(index) for mistake in _file_mistakes(folder / file)]
    return found or _channel_mistakes(folder)


def _file_mistakes(file: Path) -> list[str]:
    if not file.is_file():
        return [f"model: {file.parent} is incomplete: {file.name} is missing"]
    try:
        config = read_json(file)
    except ModelError as error:
        return [str(error)]
    return [
        f"model: {file} has no usable {name!r}: {config.get(name)!r}, but {kind.__name__} is needed"
        for name, kind in _FIELDS.get(file.parent.name, {}).items()
        if not isinstance(config.get(name), kind) or not config[name]
    ]


def _channel_mistakes(folder: Path) -> list[str]:
    configs = read_configs(folder)
    takes, made = configs.unet["in_channels"], configs.vae["latent_channels"]
    if takes == made:
        return []
    return [
        f"model: the U-Net of {folder} takes {takes} channels and its VAE makes {made}: a model that paints into pictures or "
        "edits them; only text-to-image models are supported"
    ]


def folder_mistakes(folder: Path, variant: str | None = None) -> list[str]:
    """What is wrong with a pipeline's folder, told without loading a weight."""
    found = config_mistakes(folder)
    try:
        parts = networks(read_index(folder))
    except ModelError:
        return found
    there = sorted({str(variant_of(file)) for part in parts for file in (folder / part).glob("*.safetensors")} - {"None"})
    if variant is not None and variant not in there:
        found.append(f"model: {folder} has no weights of the variant {variant!r}{nearest(variant, there)}")
    return found + [mistake for part in parts for mistake in weight_mistakes(folder / part, variant)]


def weight_mistakes(part: Path, variant: str | None) -> list[str]:
    """What is wrong with the weights of one network's folder, told from its files' headers."""
    if not part.is_dir():
        return []  # told by its configuration, which is missing too
    files = sorted(part.glob("*.safetensors"))
    pickles = [path.name for path in part.iterdir() if path.suffix in PICKLES]
    if not files and pickles:
        return [
            f"model: {part} has pickled weights ({pickles[0]}), which can run code when they are loaded; convert them with "
            "pipeline.save_pretrained(folder, safe_serialization=True) on a machine where you trust them"
        ]
    if not files:
        return [f"model: {part} has no weights (*.safetensors)"]
    chosen = [file for file in files if variant_of(file) == pick_variant(part, variant)]
    if not chosen:
        there = ", ".join(sorted({str(variant_of(file)) for file in files}))
        return [f"model: {part} has weights of the variant {there} alone; set policy.variant to it"]
    try:
        for file in chosen:
            check_whole(file)
    except ModelError as error:
        return [f"model: {error}"]
    return []


def variant_of(file: PurePath) -> str | None:
    """``fp16`` of ``model.fp16.safetensors`` and of ``model.fp16-00001-of-00002.safetensors``; None where there is none."""
    _, _, variant = file.stem.partition(".")
    return variant.partition("-")[0] or None


def pick_variant(part: Path, variant: str | None) -> str | None:
    """The variant to load of a part: the one asked for, where the part has it."""
    return variant if any(variant_of(file) == variant for file in part.glob("*.safetensors")) else None
