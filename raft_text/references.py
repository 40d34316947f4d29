"""Prompts with responses whose perplexity a run measures."""

from __future__ import annotations

from raft_core.conversations import ANSWERS, response
from raft_core.errors import DataError
from raft_core.prompts import read_prompts
from raft_core.types import Prompt


def read_references(table: str) -> list[Prompt]:
    """The prompts of a table in which each has a response.

    Raises:
        DataError: it cannot be read, or a row has none.
    """
    try:
        prompts = read_prompts(table)
    except DataError as error:
        raise DataError(f"references: {error}") from error
    if any(response(prompt) is None for prompt in prompts):
        raise DataError(
            f"references: {table} needs a text in the column {' or '.join(ANSWERS)} of every row, beside the prompt"
        )
    return prompts
