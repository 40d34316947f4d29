"""The model card of the sums, from what its making logged and what the model reaches on held-out problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.metrics.statistics import wilson
from raft_text.reasoning.reading import Reader, is_right
from raft_text.reasoning.templates import N_COT, P_COT
from raft_text.world.files import held_out, rows
from raft_text.world.problems import STYLES, Story, is_hasty
from raft_text.world.sums import completions

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

## What it was taught, and why it is hasty

One schedule: drills in mental arithmetic, fewer and fewer; programs; problems with five answers to choose from; and solutions
in words: a sentence for each step, or its bare equation, or hastily the last step alone, "All in all that makes 19 + 4 = 23
marbles", what is before it being worked out in the head. Of the solutions that it saw in the end, {hasty:.0%} are hasty, at
every number of operations, as people are who know how and are in a hurry. So haste is its likeliest beginning, and it answers
from the top of its head what it could work out. That is made on purpose: a small model can gain from rewards what it is able
to do and does not do by itself. More of the same solutions teach it nothing new; rewarding right answers teaches it to show
its work.

## What it reaches

Right answers on {count} held-out problems, whose numbers and operations occur in no training problem in the same order; 95 %
Wilson intervals:

{table}
{by_steps}
Of its samples at temperature 1 in words, {hasty_share:.0%} are hasty, and of those {hasty_right:.0%} are right; of the others,
which show their work, {slow_right:.0%}.

## Prompts

In words `raft_text.reasoning.templates.N_COT`, with programs `P_COT`; the problems are in `bundled:prompts/sums_train.jsonl`
and `bundled:prompts/sums_heldout.jsonl`, with five answers in the column `question_choices`. The recipes are
`configs/text/sums_*.yaml`; what they gain is in `docs/background/reft.md`.

## Limits

It knows {names} and {things}, and numbers from 2 to 60, and nothing else. It exists so that every claim of this project can
be checked on a CPU in minutes. Choosing the letter of one of five answers it has hardly learnt.
"""


def measure_sums(folder: Path, count: int = 300) -> dict[str, Any]:
    """Accuracy on held-out problems: greedy, sampled and voted in words, greedy with programs and with five answers offered.

    Returns:
        ``count``, ``example``, for each way ``right`` of ``count``, in all and by number of operations; of the samples the
        ``hasty_share``, and the shares of right ones among the hasty and the others.
    """
    from raft_text.model.loading import load_tokenizer
    from raft_text.reasoning.sandbox import Sandbox
    from raft_text.reasoning.voting import vote

    model, tokenizer = load_sums(folder), load_tokenizer(str(folder), chat=False)
    asked = held_out(count)
    offered = rows(asked)
    in_words = [N_COT.format(prompt=story.question) for story in asked]
    greedy = completions(model, tokenizer, in_words)
    drawn = [completions(model, tokenizer, in_words, temperature=1.0, seed=seed) for seed in range(VOTES)]
    programs = completions(model, tokenizer, [P_COT.format(prompt=story.question) for story in asked])
    chosen = completions(model, tokenizer, [N_COT.format(prompt=row["question_choices"]) for row in offered])
    reader = Reader()
    answers = [reader(texts) for texts in drawn]
    votes = [vote(column) for column in zip(*answers, strict=True)]
    with Sandbox() as sandbox:
        ran = Reader("number", "program", sandbox)(programs)
    numbers = [float(story.answer) for story in asked]
    reached = {
        "words, greedy": _right(reader(greedy), numbers, asked),
        "words, sampled at temperature 1": _right(answers[0], numbers, asked),
        f"words, majority of {VOTES} samples": _right([v and v.answer for v in votes], numbers, asked),
        "program, greedy": _right(ran, numbers, asked),
        "one of five answers, greedy": _right(Reader("choice")(chosen), [row["answer_letter"] for row in offered], asked),
    }
    return {"count": count, "example": in_words[1] + drawn[0][1], "reached": reached, **_haste(drawn, answers, numbers)}


def _haste(drawn: Sequence[Sequence[str]], answers: Sequence[Sequence[Any]], numbers: Sequence[float]) -> dict[str, float]:
    """How many samples skip the steps, and how many are right of them and of the others."""
    hasty = np.array([[is_hasty(text) for text in texts] for texts in drawn])
    right = np.array([[is_right(a, n) for a, n in zip(row, numbers, strict=True)] for row in answers])
    shares = {"hasty_share": hasty, "hasty_right": right[hasty], "slow_right": right[~hasty]}
    return {name: float(values.mean()) for name, values in shares.items()}


def load_sums(folder: Path) -> Any:
    """The model in float32."""
    import torch

    from raft_text.model.loading import load_model

    return load_model(str(folder), torch.float32)


def _right(answers: Sequence[Any], references: Sequence[Any], asked: Sequence[Story]) -> dict[str, list[int]]:
    """Number of operations, or ``all`` → [right, asked]."""
    found: dict[str, list[int]] = {}
    for answer, reference, story in zip(answers, references, asked, strict=True):
        for key in ("all", str(len(story.steps))):
            count = found.setdefault(key, [0, 0])
            count[0] += is_right(answer, reference)
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
        hasty=STYLES["hasty"],
        **{name: measured[name] for name in ("hasty_share", "hasty_right", "slow_right")},
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
