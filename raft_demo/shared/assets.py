"""Files of a page that are not Python: what its components show, look like and do in the browser."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def asset(name: str) -> str:
    """The text of a file in the app's package, by its path there, such as ``preferences/preferences.js``."""
    return (PACKAGE / name).read_text(encoding="utf-8")
