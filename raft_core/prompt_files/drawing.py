"""What a prompt's row says of how it is to be drawn: with which seed, away from what, how large."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from raft_core.errors import DataError
from raft_core.prompt_files.columns import plain_name
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.shapes import whole_number
from raft_core.types import Prompt

SETTINGS = ("seed", "negative_prompt", "width", "height")
SEEDS = 2**63  # as `rng` makes them


def settled(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A row's other columns with these settings under their plain names, seeds as numbers; blanks are left out.

    Width and height are left as they are: in a table of problems they may be anything.

    Raises:
        Unreadable: a seed that is none, a negative prompt that is no text, or two columns for one setting.
    """
    found: dict[str, Any] = {}
    for name, value in meta.items():
        plain = plain_name(name)
        if plain not in SETTINGS:
            found[name] = value
            continue
        if plain in found:
            raise Unreadable(f"has two columns called {plain!r}")
        if plain == "seed":
            value = seed_of(value)
        elif plain == "negative_prompt":
            value = _text_of(value)
        if value is not None:
            found[plain] = value
    return found


def seed_of(value: Any) -> int | None:
    """A seed as tables write it; None for a blank, and for the −1 that stands for any seed elsewhere.

    Raises:
        Unreadable: it is none.
    """
    try:
        seed = whole_number(value)
    except Unreadable as error:
        raise Unreadable(f"column 'seed': {error}; call the column something else if it is no seed") from None
    if seed is None or seed == -1:
        return None
    if not 0 <= seed < SEEDS:
        raise Unreadable(f"column 'seed': {excerpt(seed, 40)} is no seed; give a whole number from 0 to 2**63 - 1")
    return seed


def _text_of(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # as data frames write a blank
        return None
    if not isinstance(value, str):
        raise Unreadable(f"column 'negative_prompt' holds {excerpt(repr(value), 40)}, which is not a text")
    return value.strip() or None


def own_seed(prompt: Prompt, index: int) -> int | None:
    """The seed that a prompt asks for, for its sample of this index: the given one, then those that follow; None = none.

    Raises:
        DataError: what it gives is no seed.
    """
    try:
        first = seed_of(prompt.meta.get("seed"))
    except Unreadable as error:
        raise DataError(f"the prompt {excerpt(prompt.text, 40)!r}: {error}") from None
    return None if first is None else (first + index) % SEEDS


def without_negative(prompts: Iterable[Prompt]) -> list[str]:
    """For a policy that knows no negative prompts: why these cannot be honoured, in words; empty when there are none."""
    found = [prompt for prompt in prompts if prompt.meta.get("negative_prompt")]
    if not found:
        return []
    return [
        f"the prompt {excerpt(found[0].text, 40)!r} has a negative prompt ({len(found)} such prompts), which only models of "
        "pictures know: leave the column out, or call it something else"
    ]


def identity(prompt: Prompt) -> tuple[Any, ...]:
    """What makes two rows the same request: the text, and how it is to be drawn."""
    return (prompt.text, *(str(prompt.meta.get(name)) for name in SETTINGS))


def described(prompts: Iterable[Prompt]) -> list[str]:
    """How many prompts ask for what, one line for each setting that is asked for."""
    prompts = list(prompts)
    counts = {name: sum(name in prompt.meta for prompt in prompts) for name in ("seed", "negative_prompt")}
    words = {
        "seed": "have a seed of their own: sample j is drawn with seed + j, in a run's rounds with seeds that follow from it",
        "negative_prompt": "have a negative prompt of their own, which takes the place of the configured one",
    }
    return [f"{count} of {len(prompts)} prompts {words[name]}" for name, count in counts.items() if count]
