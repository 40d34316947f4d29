"""Which column of a table holds what, by its name."""

from __future__ import annotations

from collections.abc import Sequence

PROMPT_COLUMNS = ("prompt", "prompts", "text", "caption", "question")


def find_column(columns: Sequence[str], name: str | None) -> str | None:
    """The column that holds the prompts: the one of this name, else the first usual one; capitals do not matter.

    None when there is none, or when two differ in capitals alone.
    """
    for wanted in PROMPT_COLUMNS if name is None else (name,):
        if wanted in columns:
            return wanted
        alike = [column for column in columns if column.strip().lower() == wanted.lower()]
        if alike:
            return alike[0] if len(alike) == 1 else None
    return None


def plain_name(column: str) -> str:
    """``Negative Prompt`` and ``negative-prompt`` as ``negative_prompt``."""
    return "_".join(column.strip().lower().replace("-", " ").replace("_", " ").split())
