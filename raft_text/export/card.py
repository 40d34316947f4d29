"""The model card of a language model: what all cards say, completions before and after, and lines that use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raft_core.models.card import HERE, Facts, Markdown, front_matter, read_facts, title_name, verbatim, write_card
from raft_text.export.snippet import snippet

EXAMPLES = 3
LONGEST = 600  # characters of an example


def write_run_card(run_folder: Path, folder: Path, place: str | None = None) -> Path:
    """Write the card of a run beside its weights; returns its path.

    Args:
        folder: with the weights.
        place: OWNER/NAME on the Hub, if that is where they will lie.

    Raises:
        StoreError: the run cannot be read, the folder not be written to.
    """
    facts = read_facts(run_folder)
    lora = facts.policy.get("lora")
    weights = f"LoRA of rank {lora['rank']} on {', '.join(lora['targets'])}" if lora else "Full fine-tuning"
    made = {**facts.made, "weights": weights, "sampling": sampling_words(facts.policy.get("sampling") or {})}
    prompt = facts.shown.prompts[0].text if facts.shown else next(iter(facts.prompts), "a prompt")
    tags = ["text-generation", *(["lora"] if lora else [])]
    return write_card(
        folder,
        "raft_text.export",
        replace(facts, made=made),
        front_matter=front_matter(facts, "peft" if lora else "transformers", "text-generation", tags),
        title=f"{title_name(facts.model)}, aligned by RAFT",
        what=f"{weights}, for" if lora else f"{weights} of",
        outputs="completions",
        examples=examples(facts),
        snippet=Markdown(snippet(facts.policy, place or HERE, prompt)),
    )


def examples(facts: Facts) -> list[dict[str, str]]:
    """The first sample of the first prompts, before and after."""
    if facts.shown is None:
        return []
    first = range(0, len(facts.shown.before), facts.shown.k)
    pairs = [(facts.shown.before[index], facts.shown.after[index]) for index in first]
    pairs = [pair for pair in pairs if not any(sample.failed for sample in pair)][:EXAMPLES]
    return [
        {
            "prompt": before.prompt.text.strip(),
            "before": verbatim(before.output, LONGEST),
            "after": verbatim(after.output, LONGEST),
        }
        for before, after in pairs
    ]


def sampling_words(sampling: Mapping[str, Any]) -> str:
    """How completions were drawn, in one phrase."""
    if not sampling:
        return "unknown"
    parts = [f"temperature {sampling['temperature']:g}", f"at most {sampling['max_new_tokens']} tokens"]
    parts += [f"top-k {sampling['top_k']}"] if sampling["top_k"] else []
    parts += [f"top-p {sampling['top_p']:g}"] if sampling["top_p"] < 1 else []
    return ", ".join(parts)
