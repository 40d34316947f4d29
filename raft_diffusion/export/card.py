"""The model card of a picture model: what all cards say, the picture of before and after, and lines that draw it again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.sheet import write_sheet
from raft_core.models.card import HERE, Facts, Markdown, front_matter, read_facts, title_name, write_card
from raft_core.models.public_name import public_name
from raft_core.types import Sample
from raft_diffusion.export import pipeline_snippet
from raft_diffusion.export.files import KOHYA_FILE
from raft_diffusion.export.snippet import Trained, snippet
from raft_diffusion.model.lora_file import DIFFUSERS_FILE

PICTURE = "before_after.png"


def write_run_card(run_folder: Path, folder: Path, place: str | None = None) -> Path:
    """Write the card of a run, and the picture of before and after, beside its weights; returns the card's path.

    Args:
        folder: with the weights.
        place: OWNER/NAME on the Hub, if that is where they will lie.

    Raises:
        StoreError: the run cannot be read, the folder not be written to.
    """
    facts = read_facts(run_folder)
    lora = facts.policy.get("lora")
    picture = _picture(folder, facts.shown) if facts.shown else None
    adapter = adapter_words(lora)
    made = {**facts.made, "weights": adapter, "sampling": sampling_words(facts.policy.get("sampling") or {})}
    if addons := addon_words(facts.policy.get("addons") or {}):
        made["on top of"] = addons
    return write_card(
        folder,
        "raft_diffusion.export",
        replace(facts, made=made),
        front_matter=matter(facts),
        title=f"RAFT LoRA for {title_name(facts.model)}" if lora else f"{title_name(facts.model)}, fine-tuned by RAFT",
        what=f"{adapter}, for" if lora else f"{adapter} of",
        outputs="pictures",
        picture=picture,
        draws_first=_first(facts) is not None,
        addons=addons,
        kohya=Markdown(KOHYA_FILE) if lora and "network" not in facts.policy else "",
        snippet=use(facts, Trained(place or HERE, DIFFUSERS_FILE if lora else None)),
    )


def matter(facts: Facts) -> Markdown:
    """The front matter that the Hub reads."""
    family = _family(facts.policy.get("pipeline", ""))
    adapter = ["lora"] if facts.policy.get("lora") else []
    tags = [family, f"{family}-diffusers", "text-to-image", "diffusers", *adapter]
    shown = {"widget": [{"text": facts.shown.prompts[0].text, "output": {"url": PICTURE}}]} if facts.shown else {}
    return front_matter(facts, "diffusers", "text-to-image", tags, **shown)


def _family(pipeline: str) -> str:
    """The Hub's tag: stable-diffusion-xl, stable-diffusion-3, flux …"""
    if "XL" in pipeline:
        return "stable-diffusion-xl"
    name = pipeline.removesuffix("Pipeline")
    words = re.findall("[A-Z]+(?![a-z])|[A-Z][a-z]*|[0-9]+", name)
    return "-".join(word.lower() for word in words) or "stable-diffusion"


def use(facts: Facts, trained: Trained) -> Markdown:
    """The lines that draw the first picture after training, or one of a training prompt where nothing was compared."""
    first = _first(facts)
    if first is None:
        return Markdown(_lines(facts.policy)(facts.policy, trained, next(iter(facts.prompts), "a prompt"), None))
    asked = {name: value for name in ("width", "height", "negative_prompt") if (value := first.prompt.meta.get(name))}
    size = {"width": first.output.width, "height": first.output.height}
    policy = {**facts.policy, "sampling": {**(facts.policy.get("sampling") or {}), **asked}, "picture": size}
    return Markdown(_lines(policy)(policy, trained, first.prompt.text, first.seed))


def _lines(policy: Mapping[str, Any]) -> Callable[..., str]:
    """What writes the lines for this kind of policy: ``network`` is told by those of any pipeline."""
    return pipeline_snippet.snippet if "network" in policy else snippet


def _first(facts: Facts) -> Sample | None:
    """The first sample after training that was compared, unless it failed."""
    first = facts.shown.after[0] if facts.shown else None
    return None if first is None or first.failed else first


def adapter_words(lora: Mapping[str, Any] | None) -> str:
    """What was trained, in one phrase."""
    if not lora:
        return "Full fine-tuning of the denoiser"
    if lora.get("init"):
        return f"LoRA, gone on from {public_name(lora['init'])}"
    if "conv" not in lora:
        return f"LoRA of rank {lora['rank']} on {', '.join(lora['targets']) if lora.get('targets') else 'attention'}"
    parts = ["attention", *(["convolutions"] if lora["conv"] else []), *(["text encoders"] if lora["text_encoder"] else [])]
    return f"LoRA of rank {lora['rank']} on {', '.join(parts)}"


def addon_words(addons: Mapping[str, Any]) -> str:
    """What was put into the model before, in one phrase; empty where nothing was."""
    parts = [f"the VAE {public_name(addons['vae'])}"] if addons.get("vae") else []
    parts += [f"{Path(lora['file']).name} at {lora['weight']:g}" for lora in addons.get("loras") or []]
    parts += [f"{Path(each['file']).name} as {each['token']}" for each in addons.get("embeddings") or []]
    return ", ".join(parts)


def sampling_words(sampling: Mapping[str, Any]) -> str:
    """How pictures were drawn, in one phrase."""
    if not sampling:
        return "unknown"
    size = f", {sampling['width']}×{sampling['height']}" if sampling.get("width") and sampling.get("height") else ""
    scheduler = sampling["scheduler"] or "the model's own scheduler"
    options = "".join(f", {name} = {value}" for name, value in (sampling.get("options") or {}).items())
    scales = {"guidance": sampling.get("guidance_scale"), "true CFG": sampling.get("true_cfg_scale")}
    guidance = "".join(f", {name} {scale:g}" for name, scale in scales.items() if scale is not None)
    return f"{scheduler}{options}, {sampling['steps']} steps{guidance}{size}"


def _picture(folder: Path, evaluation: Evaluation) -> dict[str, str]:
    write_sheet(folder / PICTURE, evaluation)
    which = "held-out prompts" if evaluation.split == "heldout" else "training prompts"
    return {
        "path": Markdown(PICTURE),
        "caption": f"Before (left half) and after (right half) on {which}, one row per prompt, the same noise",
    }
