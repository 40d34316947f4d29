"""What was run, in short: names and settings as a person reads them, never as a program writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def policy_facts(described: Mapping[str, Any]) -> dict[str, str]:
    """Label → text of what a policy says of itself; a group of settings in one line, without those that are not set."""
    return {f"Policy: {label(name)}": in_words(value) for name, value in described.items()}


def component(entry: Any) -> str:
    """``BestThenTop: n 160`` of a component's entry in a configuration."""
    if not isinstance(entry, Mapping) or "class_path" not in entry:
        return "" if entry is None else in_words(entry)
    name, settings = entry["class_path"].rpartition(".")[2], in_words(entry.get("init_args") or {})
    return f"{name}: {settings}" if settings else name


def in_words(value: Any, nested: bool = False) -> str:
    """A value of a configuration as text: ``rank 8, conv, targets to_q to_k`` of a mapping of settings.

    What is None or empty is left out, and so is what is false; of what is true the name stands alone. A mapping within another
    stands in brackets.
    """
    if isinstance(value, Mapping):
        if "class_path" in value:
            return component(value)
        parts = [_setting(name, inner) for name, inner in value.items() if not _unset(inner)]
        text = ", ".join(parts)
        return f"({text})" if nested and text else text
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(in_words(item, nested=True) for item in value)
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return "none" if value is None else " ".join(str(value).split())


def _unset(value: Any) -> bool:
    """0 is a setting, though it equals False."""
    return value is None or value is False or (hasattr(value, "__len__") and len(value) == 0)


def _setting(name: str, value: Any) -> str:
    return label(name) if value is True else f"{label(name)} {in_words(value, nested=True)}"


def label(name: str) -> str:
    """``trained_parameters`` → ``trained parameters``."""
    return name.replace("_", " ")
