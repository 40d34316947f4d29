"""Python lines that draw a picture as a run of ``TextToImage`` has drawn it, with diffusers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raft_diffusion.export.snippet import Lines, Trained, call_lines, model_lines, on_gpu, script
from raft_diffusion.pipeline_options import FLOW_SCHEDULERS


def snippet(policy: Mapping[str, Any], trained: Trained, prompt: str, seed: int | None) -> str:
    """The lines.

    Args:
        policy: what a loaded policy says of itself: model, pipeline, network, sampling, call, dtype, variant.
        trained: from where to load.
        prompt: of the picture.
        seed: of the picture; None = any.
    """
    sampling = policy.get("sampling") or {}
    picture = call_lines(_arguments(sampling, policy), prompt, seed, "frames[0][0]" if policy.get("video") else "images[0]")
    gpu = [Lines((), ['pipe.to("cuda")'])] if on_gpu(policy) else []
    return script([model_lines(policy), _weights(policy, trained), _scheduler(sampling, policy), *gpu, picture])


def _weights(policy: Mapping[str, Any], trained: Trained) -> Lines:
    network = policy.get("network", "transformer")
    if trained.lora is None:
        arguments = f"{trained.place!r}, subfolder={network!r}, torch_dtype=pipe.dtype"
        return Lines((), [f"pipe.{network} = type(pipe.{network}).from_pretrained({arguments})"])
    if policy.get("loads_lora", True):
        return Lines((), [f"pipe.load_lora_weights({trained.place!r}, weight_name={trained.lora!r})"])
    line = f"PeftModel.from_pretrained(pipe.{network}, {trained.place!r}, subfolder={network!r})"
    return Lines(("from peft import PeftModel",), [f"pipe.{network} = {line}.get_base_model()"])


def _scheduler(sampling: Mapping[str, Any], policy: Mapping[str, Any]) -> Lines:
    """The scheduler with what it was made with; the pipeline's own needs no line."""
    name, options = sampling.get("scheduler"), {**(policy.get("carried") or {}), **(sampling.get("options") or {})}
    if name is None and not options:
        return Lines((), [])
    told = "".join(f", {option}={value!r}" for option, value in options.items())
    if name is None:
        return Lines((), [f"pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config{told})"])
    cls = FLOW_SCHEDULERS.get(name, name)
    return Lines((f"from diffusers import {cls}",), [f"pipe.scheduler = {cls}.from_config(pipe.scheduler.config{told})"])


def _arguments(sampling: Mapping[str, Any], policy: Mapping[str, Any]) -> dict[str, Any]:
    """What the pipeline is called with to draw as the run did; what it does by itself is left out."""
    found = {side: sampling[side] for side in ("width", "height") if sampling.get(side)}
    if sampling.get("steps"):
        found["num_inference_steps"] = sampling["steps"]
    if sampling.get("guidance_scale") is not None:
        found["guidance_scale"] = sampling["guidance_scale"]
    if sampling.get("true_cfg_scale", 1.0) > 1:
        found["true_cfg_scale"] = sampling["true_cfg_scale"]
        found["negative_prompt"] = sampling.get("negative_prompt", "")
    elif sampling.get("negative_prompt"):
        found["negative_prompt"] = sampling["negative_prompt"]
    found |= {"output_type": "pil"} if policy.get("video") else {}
    return found | dict(policy.get("call") or {}) | dict(sampling.get("arguments") or {})
