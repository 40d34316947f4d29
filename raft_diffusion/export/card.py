"""The model card of a picture model: what all cards say, the picture of before and after, and lines that draw it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.sheet import write_sheet
from raft_core.models.card import HERE, Facts, Markdown, front_matter, read_facts, title_name, write_card
from raft_core.models.public_name import public_name
from raft_core.types import Sample
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
        what=f"{adapter} for" if lora else f"{adapter} of",
        outputs="pictures",
        picture=picture,
        draws_first=_first(facts) is not None,
        addons=addons,
        kohya=Markdown(KOHYA_FILE) if lora else "",
        snippet=use(facts, Trained(place or HERE, DIFFUSERS_FILE if lora else None)),
    )


def matter(facts: Facts) -> Markdown:
    """The front matter that the Hub reads."""
    family = "stable-diffusion-xl" if "XL" in facts.policy.get("pipeline", "") else "stable-diffusion"
    adapter = ["lora"] if facts.policy.get("lora") else []
    tags = [family, f"{family}-diffusers", "text-to-image", "diffusers", *adapter]
    shown = {"widget": [{"text": facts.shown.prompts[0].text, "output": {"url": PICTURE}}]} if facts.shown else {}
    return front_matter(facts, "diffusers", "text-to-image", tags, **shown)


def use(facts: Facts, trained: Trained) -> Markdown:
    """The lines that draw the first picture after training, or one of a training prompt where nothing was compared."""
    first = _first(facts)
    if first is None:
        return Markdown(snippet(facts.policy, trained, next(iter(facts.prompts), "a prompt"), None))
    asked = {name: value for name in ("width", "height", "negative_prompt") if (value := first.prompt.meta.get(name))}
    size = {"width": first.output.width, "height": first.output.height}
    policy = {**facts.policy, "sampling": {**(facts.policy.get("sampling") or {}), **asked}, "picture": size}
    return Markdown(snippet(policy, trained, first.prompt.text, first.seed))


def _first(facts: Facts) -> Sample | None:
    """The first sample after training that was compared, unless it failed."""
    first = facts.shown.after[0] if facts.shown else None
    return None if first is None or first.failed else first


def adapter_words(lora: Mapping[str, Any] | None) -> str:
    """What was trained, in one phrase."""
    if not lora:
        return "Full fine-tuning of the U-Net"
    if lora.get("init"):
        return f"LoRA, gone on from {public_name(lora['init'])},"
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
    return f"{scheduler}{options}, {sampling['steps']} steps, guidance {sampling['guidance_scale']:g}{size}"


def _picture(folder: Path, evaluation: Evaluation) -> dict[str, str]:
    write_sheet(folder / PICTURE, evaluation)
    which = "held-out prompts" if evaluation.split == "heldout" else "training prompts"
    return {
        "path": PICTURE,
        "caption": f"Before (left half) and after (right half) on {which}, one row per prompt, the same noise",
    }
