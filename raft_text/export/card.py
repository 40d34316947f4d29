"""The model card: what was trained from what, by which reward, to which effect, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raft_core.errors import ModelError
from raft_core.evaluation.files import read_results
from raft_core.evaluation.table import rows, split_name
from raft_core.machine.files import write_text
from raft_core.report.page import short_name
from raft_core.store.manifest import read_config, read_run
from raft_text.model.loading import BUNDLED, locate

CARD = "README.md"
EXAMPLES = 3
LONGEST = 600  # characters of an example


def write_card(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write ``README.md`` with the front matter that the Hub reads; returns its path.

    Args:
        folder: beside the weights.
        facts: as ``run_facts`` gathers them.

    Raises:
        StoreError: the folder cannot be written to.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raft_text.export", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("card.md.j2").render(front_matter=front_matter(facts), **facts)
    write_text(folder / CARD, text)
    return folder / CARD


def front_matter(facts: Mapping[str, Any]) -> str:
    """YAML for the Hub. The licence is left to the user."""
    import yaml

    matter: dict[str, Any] = {
        "library_name": "peft" if facts["lora"] else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["text-generation", *(["lora"] if facts["lora"] else []), "raft", "alignment"],
    }
    if _on_hub(facts["base_model"]):
        matter = {"base_model": facts["base_model"]} | matter
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)


def _on_hub(model: str) -> bool:
    try:
        return locate(model)[0] == "hub"
    except ModelError:
        return False


def run_facts(run_folder: Path) -> dict[str, Any]:
    """What a run's folder tells, for ``write_card``.

    Raises:
        StoreError: the run cannot be read.
    """
    config, run = read_config(run_folder), read_run(run_folder)
    policy = run.get("policy", {})
    results = read_results(run_folder)
    evaluations = sorted(results.evaluations, key=lambda e: e.split != "heldout") if results else []
    pairs = [(e.before[i], e.after[i]) for e in evaluations[:1] for i in range(0, len(e.before), e.k)]
    model, lora = str(policy.get("model", "unknown")), policy.get("lora")
    return {
        "title": f"{Path(model).name.removeprefix(BUNDLED)}, aligned by RAFT",
        "base_model": model,
        "lora": lora,
        "method": f"LoRA of rank {lora['rank']} on {', '.join(lora['targets'])}" if lora else "full fine-tuning",
        "reward": short_name(config.get("reward")),
        "judges": [short_name(judge) for judge in config.get("judges") or []],
        "selector": short_name(config.get("selector")),
        "objective": short_name(config.get("objective")),
        "rounds": results.checkpoint if results else config.get("rounds"),
        "k": config.get("k"),
        "seed": config.get("seed"),
        "n_prompts": run.get("prompts", {}).get("train", "unknown"),
        "sampling": sampling_words(policy.get("sampling", {})),
        "figures": [(split_name(row.split), row) for row in rows(evaluations)],
        "examples": [
            {"prompt": b.prompt.text, "before": fenced(b.output), "after": fenced(a.output)} for b, a in pairs[:EXAMPLES]
        ],
        "versions": run.get("versions", {}),
        "load": json.dumps(model),
    }


def fenced(text: str) -> str:
    """A text as an indented block, which Markdown shows as it is."""
    shown = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return "\n".join(f"    {line}" for line in shown.strip("\n").split("\n"))


def sampling_words(sampling: Mapping[str, Any]) -> str:
    """How completions were drawn, in one phrase."""
    if not sampling:
        return "unknown"
    parts = [f"temperature {sampling['temperature']:g}", f"at most {sampling['max_new_tokens']} tokens"]
    parts += [f"top-k {sampling['top_k']}"] if sampling["top_k"] else []
    parts += [f"top-p {sampling['top_p']:g}"] if sampling["top_p"] < 1 else []
    return ", ".join(parts)
