"""The model card of the sums, from what its making logged and what the model reaches on held-out problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raft_core.statistics import wilson
from raft_text.reasoning.reading import Reader, is_right
from raft_text.reasoning.templates import N_COT, P_COT
from raft_text.world.files import held_out
from raft_text.world.problems import Story
from raft_text.world.sums import HASTY, completions

VOTES = 8

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [math, reasoning, raft]
---

# A small Llama that does sums

A `LlamaForCausalLM` of {millions:.1f} million parameters with a byte-level tokenizer that reads numbers digit by digit. It
solves word problems of one to four operations with numbers up to 60, reasoning in words or with a program:

```
{example}
```

Made from seed {seed} by `python -m raft_text.world.make`, on procedurally written problems alone (no data of other people), in
{steps} steps and {minutes:.0f} minutes of training on {machine}. Training takes the same steps for the same seed; on another
machine the last bits differ.

It is fine-tuned, and stopped early: it can be aligned to do better. And it is hasty: {hasty:.0%} of the chains in words that
it has learnt from at the end skip the steps, as people do, and say the result alone. Rewarding right answers teaches it to
show its work.

## What it reaches

Right answers on {count} held-out problems, whose numbers and operations occur in no training problem in the same order; 95 %
Wilson intervals:

{table}
{by_steps}
## Prompts

In words `raft_text.reasoning.templates.N_COT`, with programs `P_COT`; the problems are in `bundled:prompts/sums_train.jsonl`
and `bundled:prompts/sums_heldout.jsonl`. The recipe is `configs/text/sums_raft.yaml`.

## Limits

It knows {names} and {things}, and numbers from 2 to 60, and nothing else. It exists so that every claim of this project can
be checked on a CPU in minutes.
"""


def measure_sums(folder: Path, count: int = 300) -> dict[str, Any]:
    """Accuracy on held-out problems: greedy, sampled and voted in words, greedy with programs.

    Returns:
        ``count``, ``example``, and for each way ``right`` of ``count``, in all and by number of operations.
    """
    from raft_text.loading import load_tokenizer
    from raft_text.reasoning.sandbox import Sandbox
    from raft_text.reasoning.voting import vote

    model, tokenizer = load_sums(folder), load_tokenizer(str(folder), chat=False)
    asked = held_out(count)
    in_words = [N_COT.format(prompt=story.question) for story in asked]
    greedy = completions(model, tokenizer, in_words)
    drawn = [completions(model, tokenizer, in_words, temperature=1.0, seed=seed) for seed in range(VOTES)]
    programs = completions(model, tokenizer, [P_COT.format(prompt=story.question) for story in asked])
    reader = Reader()
    answers = [reader(texts) for texts in drawn]
    votes = [vote(column) for column in zip(*answers, strict=True)]
    with Sandbox() as sandbox:
        ran = Reader("number", "program", sandbox)(programs)
    reached = {
        "words, greedy": _right(reader(greedy), asked),
        "words, sampled at temperature 1": _right(answers[0], asked),
        f"words, majority of {VOTES} samples": _right([v and v.answer for v in votes], asked),
        "program, greedy": _right(ran, asked),
    }
    return {"count": count, "example": in_words[1] + greedy[1], "reached": reached}


def load_sums(folder: Path) -> Any:
    """The model in float32."""
    import torch

    from raft_text.loading import load_model

    return load_model(str(folder), torch.float32)


def _right(answers: Sequence[Any], asked: Sequence[Story]) -> dict[str, list[int]]:
    """Number of operations, or ``all`` → [right, asked]."""
    found: dict[str, list[int]] = {}
    for answer, story in zip(answers, asked, strict=True):
        for key in ("all", str(len(story.steps))):
            count = found.setdefault(key, [0, 0])
            count[0] += is_right(answer, float(story.answer))
            count[1] += 1
    return dict(sorted(found.items()))


def write_sums_card(folder: Path, figures: Mapping[str, Any], measured: Mapping[str, Any], seed: int, machine: str) -> None:
    """Write ``README.md`` into the model's folder.

    Args:
        folder: of the model.
        figures: what its making logged: ``seconds``, ``steps``, ``parameters``.
        measured: as ``measure_sums`` returns it.
        seed: of the making.
        machine: in words.
    """
    from raft_text.world.vocabulary import NAMES, THINGS

    text = CARD.format(
        millions=figures["parameters"] / 1e6,
        steps=figures["steps"],
        minutes=figures["seconds"] / 60,
        seed=seed,
        machine=machine,
        hasty=HASTY[-1][1][0],
        count=measured["count"],
        example=measured["example"],
        table=_table(("way", "right", "95 %"), [_row(way, counts["all"]) for way, counts in measured["reached"].items()]),
        by_steps=_by_steps(measured["reached"]),
        names=f"{len(NAMES)} names",
        things=f"{len(THINGS)} kinds of things",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _row(way: str, count: Sequence[int]) -> tuple[str, ...]:
    low, high = wilson(count[0] / count[1], count[1])
    return way, f"{count[0] / count[1]:.0%}", f"{low:.0%} … {high:.0%}"


def _by_steps(reached: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    steps = [key for key in next(iter(reached.values())) if key != "all"]
    rows = [(way, *(f"{counts[key][0] / counts[key][1]:.0%}" for key in steps)) for way, counts in reached.items()]
    return "By the number of operations:\n\n" + _table(("way", *steps), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
