"""Which column of a table holds what, by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

PROMPT_COLUMNS = ("prompt", "prompts", "text", "caption", "question")
#: Beside one of these a question is only a part of what is asked, as in SVAMP's Body and Question; and what stands between.
STANDS_BEFORE_A_QUESTION = {"body": " ", "context": "\n\n", "passage": "\n\n"}


def find_column(columns: Sequence[str], name: str | None) -> str | None:
    """The column that holds the prompts: the one of this name, else the first usual one; capitals do not matter.

    None when there is none, when two differ in capitals alone, or when a question stands beside the text that it is about.
    """
    plain = {column.strip().lower() for column in columns}
    for wanted in PROMPT_COLUMNS if name is None else (name,):
        if name is None and wanted == "question" and plain & STANDS_BEFORE_A_QUESTION.keys():
            return None
        if wanted in columns:
            return wanted
        alike = [column for column in columns if column.strip().lower() == wanted.lower()]
        if alike:
            return alike[0] if len(alike) == 1 else None
    return None


def find_question(columns: Sequence[str]) -> tuple[str, str, str] | None:
    """(column of the text that a question is about, column of the question, what stands between them) where both make a prompt;
    None where they do not, or where it cannot be told which."""
    named: dict[str, list[str]] = {}
    for column in columns:
        named.setdefault(column.strip().lower(), []).append(column)
    before = [name for name in STANDS_BEFORE_A_QUESTION if name in named]
    if len(before) != 1 or len(named[before[0]]) != 1 or len(named.get("question", ())) != 1:
        return None
    return named[before[0]][0], named["question"][0], STANDS_BEFORE_A_QUESTION[before[0]]


def plain_name(column: str) -> str:
    """``Negative Prompt``, ``negative-prompt`` and ``negativePrompt`` as ``negative_prompt``."""
    column = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return "_".join(column.strip().lower().replace("-", " ").replace("_", " ").split())
