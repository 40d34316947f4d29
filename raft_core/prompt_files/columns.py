"""Which column of a table holds what, by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

PROMPT_COLUMNS = ("prompt", "prompts", "text", "caption", "question")
#: Beside one of these a question is only a part of what is asked, as in SVAMP's Body and Question.
STANDS_BEFORE_A_QUESTION = frozenset({"body", "context", "passage"})


def find_column(columns: Sequence[str], name: str | None) -> str | None:
    """The column that holds the prompts: the one of this name, else the first usual one; capitals do not matter.

    None when there is none, when two differ in capitals alone, or when a question stands beside the text that it is about.
    """
    plain = {column.strip().lower() for column in columns}
    for wanted in PROMPT_COLUMNS if name is None else (name,):
        if name is None and wanted == "question" and plain & STANDS_BEFORE_A_QUESTION:
            return None
        if wanted in columns:
            return wanted
        alike = [column for column in columns if column.strip().lower() == wanted.lower()]
        if alike:
            return alike[0] if len(alike) == 1 else None
    return None


def plain_name(column: str) -> str:
    """``Negative Prompt``, ``negative-prompt`` and ``negativePrompt`` as ``negative_prompt``."""
    column = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return "_".join(column.strip().lower().replace("-", " ").replace("_", " ").split())
