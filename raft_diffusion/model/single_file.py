"""Whole models in one .safetensors file, in the original layout, told apart by the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from raft_core.errors import ModelError
from raft_diffusion.model.weights_file import check_whole, header

UNET_KEY = "model.diffusion_model.input_blocks.0.0.weight"
#: A weight of SDXL's second text encoder in the original single-file layout.
XL_KEY_PREFIX = "conditioner.embedders.1."
#: Whose configuration a single file has, by whether it is SDXL.
ORIGIN = {False: "stable-diffusion-v1-5/stable-diffusion-v1-5", True: "stabilityai/stable-diffusion-xl-base-1.0"}
#: By which trainers mark a file whose U-Net predicts v.
V_KEY = "v_pred"


def is_model(keys: Collection[str]) -> bool:
    """Whether these tensors' names are those of a whole model, not of what was trained from one."""
    return any(key.startswith("model.diffusion_model.") for key in keys)


def is_xl_file(path: Path) -> bool:
    """Whether a single file holds SDXL, told from its header alone.

    Raises:
        ModelError: the file is no safetensors file.
    """
    return any(key.startswith(XL_KEY_PREFIX) for key in header(path))


def config_folder(path: Path) -> Path | None:
    """A folder beside the file, called as the file without its suffix, may hold its configuration; else the Hub is asked."""
    folder = path.with_suffix("")
    return folder if (folder / "model_index.json").is_file() else None


def file_mistakes(path: Path) -> list[str]:
    """What is wrong with a single file, told without loading a weight."""
    try:
        check_whole(path)
        keys = header(path)
    except ModelError as error:
        return [f"model: {error}"]
    if UNET_KEY not in keys:
        what = "a LoRA, no model" if any("lora" in key for key in keys) else "no Stable Diffusion"
        return [f"model: {path} holds {what}: {UNET_KEY} is missing; give the model that it was made for"]
    parts = {"VAE": ("first_stage_model.",), "text encoder": ("cond_stage_model.", XL_KEY_PREFIX)}
    lacking = [name for name, prefixes in parts.items() if not any(key.startswith(prefixes) for key in keys)]
    if lacking:
        return [f"model: {path} holds no {' and no '.join(lacking)} of Stable Diffusion 1.x, 2.x or SDXL"]
    channels = keys[UNET_KEY]["shape"][1]
    if channels != 4:
        return [f"model: {path} takes {channels} channels instead of 4: only text-to-image models are supported"]
    if V_KEY in keys and config_folder(path) is None:
        return [
            f"model: {path} predicts v, which its configuration on the Hub does not say: put its configuration as a "
            f"diffusers folder beside it, {path.with_suffix('')}, with prediction_type v_prediction in its scheduler"
        ]
    return []
