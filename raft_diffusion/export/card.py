"""The model card: what was trained from what, by which reward, to which effect, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raft_core.errors import ModelError
from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.files import read_results
from raft_core.evaluation.sheet import write_sheet
from raft_core.machine.files import write_text
from raft_core.metrics.statistics import Estimate
from raft_core.store.manifest import read_config, read_run
from raft_diffusion.export.files import DIFFUSERS_FILE, KOHYA_FILE
from raft_diffusion.model import bundle, loading

CARD = "README.md"
PICTURE = "before_after.png"
PROMPTS_SHOWN = 5


def write_card(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write ``README.md`` with the front matter that the Hub reads; returns its path.

    Args:
        folder: beside the weights.
        facts: as ``run_facts`` gathers them: base_model, pipeline, reward, judges, prompts, n_prompts, method (adapter,
            sampling, selector, objective, rounds, k), seed, and if there are any figures, images, versions, files.

    Raises:
        StoreError: the folder cannot be written to.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raft_diffusion.export", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template("card.md.j2")
    defaults = {"figures": [], "images": [], "versions": {}, "files": {}, "judges": [], "prompts": []}
    known = {**defaults, **facts}
    known.setdefault("title", title(known))
    known["method"] = {"call": {}, **known["method"]}
    base = load_base(known["base_model"], known["pipeline"])
    call = call_example(known["prompts"][0] if known["prompts"] else "a prompt", known["method"]["call"])
    text = template.render(front_matter=front_matter(known), load_base=base, call_example=call, **known)
    write_text(folder / CARD, text)
    return folder / CARD


def title(facts: Mapping[str, Any]) -> str:
    """What was trained, and from which model."""
    name = Path(facts["base_model"]).name.removeprefix(bundle.PREFIX).removesuffix(".safetensors")
    return f"RAFT LoRA for {name}" if is_lora(facts) else f"{name}, fine-tuned by RAFT"


def is_lora(facts: Mapping[str, Any]) -> bool:
    """Whether adapters were trained, not the whole U-Net."""
    return facts["method"]["adapter"].startswith("LoRA")


def front_matter(facts: Mapping[str, Any]) -> str:
    """YAML for the Hub. The licence is left to the user."""
    import yaml

    family = "stable-diffusion-xl" if "XL" in facts.get("pipeline", "") else "stable-diffusion"
    adapter = ["lora"] if is_lora(facts) else []
    matter: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": [family, f"{family}-diffusers", "text-to-image", "diffusers", *adapter, "raft", "alignment"],
    }
    if _on_hub(facts["base_model"]):
        matter = {"base_model": facts["base_model"]} | matter
    if facts["images"]:
        widget = [{"text": image["prompt"], "output": {"url": image["path"]}} for image in facts["images"] if "prompt" in image]
        matter |= {"widget": widget} if widget else {}
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)


def load_base(model: str, pipeline: str = "") -> str:
    """Python lines that load the base model, a single file by its pipeline's class."""
    if model.startswith(bundle.PREFIX):
        return f"from raft_diffusion.model.bundle import pipeline\n\npipe = pipeline({model!r})"
    loader = "from_single_file" if model.endswith(".safetensors") else "from_pretrained"
    cls = (pipeline or "StableDiffusionPipeline") if loader == "from_single_file" else "DiffusionPipeline"
    return f"from diffusers import {cls}\n\npipe = {cls}.{loader}({json.dumps(model)})"


def _on_hub(model: str) -> bool:
    try:
        return loading.locate(model)[0] == "hub"
    except ModelError:
        return False


def run_facts(run_folder: Path, folder: Path) -> dict[str, Any]:
    """What a run's folder tells, for ``write_card``; puts the picture of before and after into ``folder``.

    Raises:
        StoreError: the run cannot be read.
    """
    config, run = read_config(run_folder), read_run(run_folder)
    policy = run.get("policy", {})
    results = read_results(run_folder)
    evaluations = list(results.evaluations) if results else []
    shown = next((e for e in evaluations if e.split == "heldout"), evaluations[0] if evaluations else None)
    training = next((e for e in evaluations if e.split == "train"), shown)
    return {
        "base_model": policy.get("model", "unknown"),
        "pipeline": policy.get("pipeline", ""),
        "reward": _name(config.get("reward")),
        "judges": [_name(judge) for judge in config.get("judges") or []],
        "prompts": list(dict.fromkeys(p.text for p in training.prompts))[:PROMPTS_SHOWN] if training else [],
        "n_prompts": run.get("prompts", {}).get("train", "unknown"),
        "method": {
            "adapter": adapter_words(policy),
            "sampling": sampling_words(policy.get("sampling", {})),
            "call": call_arguments(policy.get("sampling", {})),
            "selector": _name(config.get("selector")),
            "objective": _name(config.get("objective")),
            "rounds": results.checkpoint if results else config.get("rounds"),
            "k": config.get("k"),
        },
        "seed": config.get("seed"),
        "figures": figures(evaluations),
        "images": [_picture(folder, shown)] if shown else [],
        "versions": run.get("versions", {}),
        "files": files_in(folder),
    }


def figures(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Rows of the before/after table."""
    return [
        {
            "split": evaluation.split,
            "name": comparison.name,
            "role": comparison.role,
            "before": f"{comparison.before:.3f}",
            "after": f"{comparison.after:.3f}",
            "difference": _interval(comparison.difference),
            "wins": f"{comparison.win_rate.value:.0%}",
        }
        for evaluation in evaluations
        for comparison in evaluation.comparisons
    ]


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def files_in(folder: Path) -> dict[str, str]:
    """The weights that lie in a folder, by what takes them."""
    known = {"diffusers": DIFFUSERS_FILE, "kohya": KOHYA_FILE, "unet": "unet"}
    return {kind: name for kind, name in known.items() if (folder / name).exists()}


def adapter_words(policy: Mapping[str, Any]) -> str:
    """The adapter in one phrase."""
    lora = policy.get("lora")
    if not lora:
        return "Full fine-tuning of the U-Net"
    parts = ["attention", *(["convolutions"] if lora["conv"] else []), *(["text encoders"] if lora["text_encoder"] else [])]
    return f"LoRA of rank {lora['rank']} on {', '.join(parts)}"


def sampling_words(sampling: Mapping[str, Any]) -> str:
    """How pictures were drawn, in one phrase."""
    if not sampling:
        return "unknown"
    size = f", {sampling['width']}×{sampling['height']}" if sampling.get("width") and sampling.get("height") else ""
    scheduler = sampling["scheduler"] or "the model's own scheduler"
    return f"{scheduler}, {sampling['steps']} steps, guidance {sampling['guidance_scale']:g}{size}"


def call_arguments(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """What a pipeline of diffusers is called with to draw as the run did: adapters are at home at that size and guidance."""
    names = {"width": "width", "height": "height", "steps": "num_inference_steps", "guidance_scale": "guidance_scale"}
    names |= {"guidance_rescale": "guidance_rescale", "negative_prompt": "negative_prompt"}
    return {theirs: sampling[ours] for ours, theirs in names.items() if sampling.get(ours)}


def call_example(prompt: str, arguments: Mapping[str, Any]) -> str:
    """Python lines that draw one picture with ``pipe``."""
    if not arguments:
        return f"image = pipe({prompt!r}).images[0]"
    words = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"image = pipe(\n    {prompt!r},\n    {words},\n).images[0]"


def _picture(folder: Path, evaluation: Evaluation) -> dict[str, str]:
    write_sheet(folder / PICTURE, evaluation)
    which = "held-out prompts" if evaluation.split == "heldout" else "training prompts"
    return {
        "path": PICTURE,
        "caption": f"Before (left half) and after (right half) on {which}, one row per prompt, the same noise",
    }


def _name(component: Any) -> str:
    """A component of the configuration in words: its class without the package."""
    if isinstance(component, Mapping):
        component = component.get("class_path", "unknown")
    return str(component).rsplit(".", 1)[-1] if component else "none"
