"""Models that ship with the package: ``bundled:NAME``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raft_core.errors import ModelError, nearest
from raft_core.machine.torchvision import ensure_importable

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PREFIX = "bundled:"
FOLDER = Path(__file__).parents[1] / "bundled"


def names() -> list[str]:
    """Bundled diffusers folders, by name."""
    return sorted(path.parent.name for path in FOLDER.glob("*/model_index.json"))


def resolve(name: str) -> Path:
    """The folder of a bundled part, with or without the prefix ``bundled:``.

    Raises:
        ModelError: nothing of this name ships with the package.
    """
    bare = name.removeprefix(PREFIX)
    folder = FOLDER / bare
    if not bare or not folder.is_dir() or FOLDER not in folder.resolve().parents:
        known = [path.name for path in FOLDER.iterdir() if path.is_dir()] if FOLDER.is_dir() else []
        raise ModelError(f"no bundled model is called {bare!r}{nearest(bare, known)}")
    return folder


def pipeline(name: str) -> DiffusionPipeline:
    """A bundled model as the pipeline of diffusers that it is."""
    ensure_importable()  # diffusers reaches torchvision on the way
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(resolve(name))
