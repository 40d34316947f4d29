"""What is put into a pipeline before it is trained: another VAE, textual inversions, LoRAs merged into the weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.models.offline import reason
from raft_core.models.quiet import quiet
from raft_diffusion.model.folders import PICKLES, Configs, is_xl_unet, read_json
from raft_diffusion.model.lora_file import Factors, locate_lora, read_lora
from raft_diffusion.model.lora_fit import fitted, unet_shapes, weight_shapes
from raft_diffusion.model.weights_file import check_whole, header, read_tensors
from raft_diffusion.options import Addons, Embedding
from raft_diffusion.process.resolution import pixels_per_latent

#: Names of an SDXL embedding's vectors → the part of the pipeline that reads them.
_XL_VECTORS = {"clip_l": ("text_encoder", "tokenizer"), "clip_g": ("text_encoder_2", "tokenizer_2")}


def mistakes(addons: Addons, init: str | None, configs: Configs | None) -> list[str]:
    """What is wrong with the files of addons, and with the LoRA to go on from, told without loading a model.

    Args:
        configs: of the model; None = not known yet, and whether a LoRA fits is then not told.
    """
    found = _vae_mistakes(addons.vae, configs) if addons.vae else []
    found += [mistake for each in addons.embeddings for mistake in _embedding_mistakes(each.file, configs)]
    files = {f"addons.loras.{number}.file": each.file for number, each in enumerate(addons.loras)}
    for where, file in (files | ({"lora.init": init} if init else {})).items():
        try:
            path = locate_lora(file)
            if configs is not None:
                check_lora(path, configs)
        except ModelError as error:
            found.append(f"{where}: {error}")
    return found


def check_lora(path: Path, configs: Configs) -> None:
    """Compare a LoRA with the U-Net that it is to be put into; that of the text encoders shows when they are loaded.

    Raises:
        ModelError: it is none, or for another model.
    """
    update = read_lora(path, **_naming(configs.unet))
    try:
        fitted({layer: part for layer, part in update.items() if layer.startswith("unet.")}, unet_shapes(configs.unet))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def read_fitting(path: Path, networks: Mapping[str, Any]) -> dict[str, Factors]:
    """A LoRA by the names of these networks' layers.

    Raises:
        ModelError: it is none, or for another model; names the file.
    """
    update = read_lora(path, **_naming(networks["unet"].config))
    try:
        return fitted(update, weight_shapes(networks))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _naming(unet: Mapping[str, Any]) -> dict[str, Any]:
    """What the names of a LoRA's layers depend on."""
    return {"xl": is_xl_unet(unet), "layers_per_block": unet.get("layers_per_block", 2)}


def put_into(pipe: Any, addons: Addons, networks: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Change a pipeline on the CPU; the order of the LoRAs does not matter.

    Raises:
        ModelError: a file does not fit.
    """
    if addons.vae:
        pipe.register_modules(vae=load_vae(addons.vae, pipe.vae, dtype))
    for embedding in addons.embeddings:
        _add_word(pipe, embedding)
    for lora in addons.loras:
        merge(networks, read_fitting(locate_lora(lora.file), networks), lora.weight)


def merge(networks: Mapping[str, Any], update: Mapping[str, Factors], weight: float) -> None:
    """Add a LoRA to the weights themselves: summed in float32, kept in the weights' precision."""
    for layer, part in update.items():
        network, _, inside = layer.partition(".")
        target = networks[network].get_submodule(inside).weight
        target.data = (target.data.float() + weight * part.update()).to(target.dtype)


# ---------------------------------------------------------------------- the VAE


def _vae_mistakes(vae: str, configs: Configs | None) -> list[str]:
    path = Path(vae).expanduser()
    if path.suffix in PICKLES:
        return [f"addons.vae: {vae} is a pickle, which can run code when it is loaded; use its .safetensors version"]
    try:
        if path.is_file():
            check_whole(path)
            return []
        if path.is_dir():
            return _other_latents(read_json(path / "config.json"), configs.vae if configs else None, vae)
    except ModelError as error:
        return [f"addons.vae: {error}"]
    if path.is_absolute() or vae.startswith((".", "~")) or vae.count("/") != 1 or path.suffix == ".safetensors":
        return [f"addons.vae: {vae} does not exist; give a folder, ORGANISATION/NAME on the Hub, or a .safetensors file"]
    return []


def _other_latents(its: Mapping[str, Any], models: Mapping[str, Any] | None, vae: str) -> list[str]:
    """Why the U-Net cannot work on the latents of this VAE."""
    if models is None:
        return []
    channels = its.get("latent_channels"), models.get("latent_channels")
    if channels[0] != channels[1]:
        return [f"addons.vae: the latents of {vae} have {channels[0]} channels, those of the model {channels[1]}"]
    shrinks = pixels_per_latent(its), pixels_per_latent(models)
    if shrinks[0] != shrinks[1]:
        return [f"addons.vae: {vae} shrinks pictures {shrinks[0]} times, the model's own VAE {shrinks[1]} times"]
    return []


def load_vae(vae: str, own: Any, dtype: torch.dtype) -> Any:
    """An autoencoder in place of the model's ``own``, whose configuration a single file has.

    Raises:
        ModelError: it cannot be loaded, or its latents are others.
    """
    from diffusers import AutoencoderKL

    path = Path(vae).expanduser()
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            if path.is_file():
                own.save_config(folder)
                found = AutoencoderKL.from_single_file(str(path), config=folder, local_files_only=True, torch_dtype=dtype)
            else:
                found = AutoencoderKL.from_pretrained(
                    str(path) if path.is_dir() else vae, torch_dtype=dtype, use_safetensors=True
                )
    except Exception as error:  # whatever a file of someone else's makes diffusers stumble over
        raise ModelError(f"addons.vae: {vae} could not be loaded: {reason(error, vae)}") from error
    found = found if isinstance(found, AutoencoderKL) else found[0]
    if lacking := [name for name, value in found.named_parameters() if value.is_meta]:
        raise ModelError(f"addons.vae: {vae} lacks {len(lacking)} weights, such as {lacking[0]}")
    if other := _other_latents(found.config, own.config, vae):
        raise ModelError(other[0])
    return found


# ---------------------------------------------------------------------- textual inversions


def _embedding_mistakes(file: str, configs: Configs | None) -> list[str]:
    path = Path(file).expanduser()
    if path.suffix != ".safetensors":
        return [f"addons.embeddings: {file} is no .safetensors file; other files of embeddings are pickles, which can run code"]
    try:
        check_whole(path)
        keys = header(path).keys() - {"__metadata__"}
    except ModelError as error:
        return [f"addons.embeddings: {error}"]
    for_xl = keys == _XL_VECTORS.keys()
    if not for_xl and len(keys) != 1:
        return [f"addons.embeddings: {file} holds {len(keys)} tensors, but a textual inversion is one, or clip_l and clip_g"]
    if configs is not None and for_xl != is_xl_unet(configs.unet):
        theirs, ours = ("SDXL", "SD 1.x or 2.x") if for_xl else ("SD 1.x or 2.x", "SDXL")
        return [f"addons.embeddings: {file} was made for {theirs}, but the model is {ours}"]
    return []


def _add_word(pipe: Any, embedding: Embedding) -> None:
    file = Path(embedding.file).expanduser()
    tensors = read_tensors(file)
    parts = _XL_VECTORS if getattr(pipe, "text_encoder_2", None) is not None else dict.fromkeys(tensors, _XL_VECTORS["clip_l"])
    if parts.keys() != tensors.keys():
        raise ModelError(f"addons.embeddings: {file} was made for another model: it holds {', '.join(sorted(tensors))}")
    for name, (encoder, tokenizer) in parts.items():
        text_encoder, vectors = getattr(pipe, encoder), tensors[name].float()
        if vectors.shape[-1] != text_encoder.config.hidden_size:
            raise ModelError(
                f"addons.embeddings: {file} was made for another model: its vectors have {vectors.shape[-1]} numbers, the "
                f"words of the model {text_encoder.config.hidden_size}"
            )
        try:
            with quiet(), torch.random.fork_rng(devices=[]):  # new rows are drawn, then filled
                pipe.load_textual_inversion(
                    vectors.reshape(-1, vectors.shape[-1]),
                    token=embedding.token,
                    text_encoder=text_encoder,
                    tokenizer=getattr(pipe, tokenizer),
                )
        except ValueError as error:  # a word that is known already
            raise ModelError(f"addons.embeddings: {file} could not be added: {error}") from error
        text_encoder.requires_grad_(False)
