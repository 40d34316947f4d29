"""Python lines that draw a picture as a run has drawn it, with diffusers alone: model, addons, weights, scheduler, call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.models.public_name import is_local, public_name
from raft_diffusion.model import bundle
from raft_diffusion.options import SCHEDULERS

FOLDER = "path/to"  # in which whoever runs the lines keeps files of theirs


@dataclass(frozen=True)
class Trained:
    """What was trained, and where it lies.

    Attributes:
        place: a folder, or OWNER/NAME on the Hub.
        lora: the file of a LoRA; None after full fine-tuning, which leaves a folder ``unet``.
    """

    place: str
    lora: str | None


def snippet(policy: Mapping[str, Any], trained: Trained, prompt: str, seed: int | None) -> str:
    """The lines.

    Args:
        policy: what a loaded policy says of itself: model, pipeline, sampling, addons, dtype, variant.
        trained: from where to load.
        prompt: of the picture.
        seed: of the picture; None = any.
    """
    parts = [model_lines(policy), *_addons(policy.get("addons") or {}, _is_xl(policy))]
    if trained.lora is None:
        arguments = f"{trained.place!r}, subfolder='unet', torch_dtype=pipe.dtype"
        parts.append(Lines((), [f"pipe.unet = type(pipe.unet).from_pretrained({arguments})"]))
    else:
        parts.append(Lines((), [f"pipe.load_lora_weights({trained.place!r}, weight_name={trained.lora!r})"]))
    sampling = policy.get("sampling") or {}
    parts += [_scheduler(sampling), call_lines(call_arguments(sampling, policy.get("picture") or {}), prompt, seed)]
    if on_gpu(policy):
        parts.insert(-1, Lines((), ['pipe.to("cuda")']))
    return script(parts)


def script(parts: Sequence[Lines]) -> str:
    """Parts behind each other, what they import first."""
    imports = sorted({line for part in parts for line in part.imports}, key=lambda line: (line.startswith("from"), line))
    return "\n".join([*imports_of(imports), "", *(line for part in parts for line in part.lines)])


@dataclass(frozen=True)
class Lines:
    """Some lines, and what they import: ``import torch`` or ``from diffusers import NAME``."""

    imports: tuple[str, ...]
    lines: list[str]


def imports_of(imports: list[str]) -> list[str]:
    """One line for all that comes from diffusers."""
    start = "from diffusers import "
    names = sorted(line.removeprefix(start) for line in imports if line.startswith(start))
    return [line for line in imports if not line.startswith(start)] + ([start + ", ".join(names)] if names else [])


def on_gpu(policy: Mapping[str, Any]) -> bool:
    """Whether pictures were drawn on one."""
    return str(policy.get("device", "")).startswith("cuda")


def _dtype(policy: Mapping[str, Any]) -> str:
    return "" if policy.get("dtype", "float32") == "float32" else f", torch_dtype=torch.{policy['dtype']}"


def local(model: str) -> str:
    """A model as whoever runs the lines can name it: a file of this machine by a place that they have to fill in."""
    return f"{FOLDER}/{public_name(model)}" if is_local(model) else model


def model_lines(policy: Mapping[str, Any]) -> Lines:
    """The pipeline, in its precision."""
    model, dtype = str(policy.get("model", "unknown")), _dtype(policy)
    torch_too = ("import torch",) if dtype else ()
    if model.startswith(bundle.PREFIX):
        return Lines(("from raft_diffusion.model.bundle import pipeline",), [f"pipe = pipeline({model!r})"])
    single = model.endswith(".safetensors")
    cls = (policy.get("pipeline") or "StableDiffusionPipeline") if single else "DiffusionPipeline"
    loader = "from_single_file" if single else "from_pretrained"
    variant = f", variant={policy['variant']!r}" if policy.get("variant") and not single else ""
    extra = ", add_watermarker=False" if _is_xl(policy) else ""
    return Lines(
        (*torch_too, f"from diffusers import {cls}"), [f"pipe = {cls}.{loader}({local(model)!r}{dtype}{variant}{extra})"]
    )


def _is_xl(policy: Mapping[str, Any]) -> bool:
    return "XL" in policy.get("pipeline", "")


def _addons(addons: Mapping[str, Any], xl: bool) -> list[Lines]:
    found = []
    if vae := addons.get("vae"):
        single = str(vae).endswith(".safetensors")
        loader = f"AutoencoderKL.{'from_single_file' if single else 'from_pretrained'}({local(vae)!r}, torch_dtype=pipe.dtype)"
        found.append(Lines(("from diffusers import AutoencoderKL",), [f"pipe.vae = {loader}"]))
    for embedding in addons.get("embeddings") or []:
        found.append(_embedding(Path(embedding["file"]).name, embedding["token"], xl))
    for lora in addons.get("loras") or []:
        lines = [
            f"pipe.load_lora_weights({FOLDER!r}, weight_name={Path(lora['file']).name!r})",
            f"pipe.fuse_lora(lora_scale={lora['weight']!r})",
            "pipe.unload_lora_weights()",
        ]
        found.append(Lines((), lines))
    return found


def _embedding(file: str, token: str, xl: bool) -> Lines:
    if not xl:
        return Lines((), [f"pipe.load_textual_inversion({FOLDER!r}, weight_name={file!r}, token={token!r})"])
    lines = [f"vectors = load_file({f'{FOLDER}/{file}'!r})"]
    for name, end in (("clip_l", ""), ("clip_g", "_2")):
        parts = f"text_encoder=pipe.text_encoder{end}, tokenizer=pipe.tokenizer{end}"
        lines.append(f"pipe.load_textual_inversion(vectors[{name!r}], token={token!r}, {parts})")
    return Lines(("from safetensors.torch import load_file",), lines)


def _scheduler(sampling: Mapping[str, Any]) -> Lines:
    """The scheduler with its options; without it pictures are others by about as much as training changes them."""
    name = sampling.get("scheduler")
    if name is None and not sampling.get("options"):
        return Lines((), [])
    options = "".join(f", {option}={value!r}" for option, value in (sampling.get("options") or {}).items())
    if name is None:
        return Lines((), [f"pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config{options})"])
    cls = SCHEDULERS.get(name, name)
    return Lines((f"from diffusers import {cls}",), [f"pipe.scheduler = {cls}.from_config(pipe.scheduler.config{options})"])


def call_lines(settings: Mapping[str, Any], prompt: str, seed: int | None, result: str = "images[0]") -> Lines:
    """The call of the pipeline, and where its picture is."""
    arguments = [repr(prompt), *(f"{name}={value!r}" for name, value in settings.items())]
    if seed is not None:
        arguments.append(f"generator=torch.Generator().manual_seed({seed})")
    lines = ["image = pipe(", *(f"    {argument}," for argument in arguments), f").{result}"]
    return Lines(("import torch",) if seed is not None else (), lines)


def call_arguments(sampling: Mapping[str, Any], picture: Mapping[str, int]) -> dict[str, Any]:
    """What a pipeline is called with to draw as the run did; what it does by itself is left out.

    Args:
        picture: width and height as they were drawn: a pipeline that is told one of the two forgets it.
    """
    sized = sampling.get("width") or sampling.get("height")
    found = {side: picture.get(side, sampling.get(side)) for side in ("width", "height")} if sized else {}
    names = {"steps": "num_inference_steps", "guidance_scale": "guidance_scale"}
    found |= {theirs: sampling[ours] for ours, theirs in names.items() if sampling.get(ours) is not None}
    return found | {name: sampling[name] for name in ("guidance_rescale", "negative_prompt", "eta") if sampling.get(name)}
