"""The prompt files of the sums: JSONL with the question, the reference answer, and both chains of thought."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from raft_core.machine.files import replacing
from raft_core.rng import numpy_rng
from raft_text.reasoning.templates import program, words
from raft_text.world.problems import Split, Story, as_program, in_words, pick_style, stories, with_choices

SEED = 0
COUNTS: dict[Split, int] = {"train": 1200, "held_out": 300}
NAMES: dict[Split, str] = {"train": "sums_train.jsonl", "held_out": "sums_heldout.jsonl"}


def chosen(split: Split) -> list[Story]:
    """The problems of a file, all different."""
    found: dict[str, Story] = {}
    for story in stories(SEED, "file", split, split=split):
        found.setdefault(story.question, story)
        if len(found) == COUNTS[split]:
            break
    return list(found.values())


def write_problems(folder: Path) -> None:
    """Write both files.

    Raises:
        StoreError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in NAMES.items():
        with replacing(folder / name) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows(chosen(split))), encoding="utf-8")


def rows(among: Sequence[Story]) -> list[dict[str, str]]:
    """One record a problem.

    ``answer_value`` is what ``AnswerReward`` reads; ``answer_cot`` is a written chain of thought, hasty half of the time, and
    ``response`` what fine-tuning on it teaches; ``program`` is the same as a program. ``question_choices`` offers five answers,
    ``answer_letter`` is the right one. ``steps`` is the number of operations.
    """
    return [_row(story) for story in among]


def _row(story: Story) -> dict[str, str]:
    rng = numpy_rng(SEED, "row", story.question)
    chain = in_words(story, pick_style(rng))
    question_choices, letter = with_choices(story, rng)
    return {
        "question": story.question,
        "answer_value": str(story.answer),
        "steps": str(len(story.steps)),
        "answer_cot": chain,
        "response": words(chain, str(story.answer)),
        "program": program(as_program(story), story.question),
        "question_choices": question_choices,
        "answer_letter": letter,
    }


def held_out(count: int | None = None) -> list[Story]:
    """The held-out problems, or the first of them."""
    return list(islice(chosen("held_out"), count))
