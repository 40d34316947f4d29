"""Files of a page that are not Python: what its components show, look like and do in the browser."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "assets"


def asset(name: str) -> str:
    """The text of a file in ``demos/assets``."""
    return (FOLDER / name).read_text(encoding="utf-8")
