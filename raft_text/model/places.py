"""Where a model is: bundled with the package, in a folder, or on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from raft_core.errors import ModelError, nearest

Place = Literal["folder", "hub"]

BUNDLED = "bundled:"
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def locate(model: str) -> tuple[Place, str]:
    """Where ``model`` is, in words and as a path or Hub id.

    Raises:
        ModelError: a bundled model or a path that does not exist, or a file.
    """
    if model.startswith(BUNDLED):
        return "folder", str(bundled(model.removeprefix(BUNDLED)))
    path = Path(model).expanduser()
    if path.is_dir():
        return "folder", str(path)
    if path.suffix in PICKLES:
        raise ModelError(
            f"model: {model} is a pickle, which can run code when it is loaded; give the folder of a transformers model in "
            "safetensors"
        )
    if path.is_file():
        raise ModelError(f"model: {model} is a file; give the folder of a transformers model (config.json, *.safetensors)")
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1 or not model.strip("/"):
        raise ModelError(
            f"model: {model} does not exist; give a folder, ORGANISATION/NAME on the Hub, or one of the bundled models"
        )
    return "hub", model


def bundled(name: str) -> Path:
    """The folder of a language model that ships with the package.

    Raises:
        ModelError: there is none of this name.
    """
    known = [path.parent.name for path in BUNDLED_FOLDER.glob("*/config.json")]
    if name not in known:
        raise ModelError(f"no bundled language model is called {name!r}{nearest(name, known)}")
    return BUNDLED_FOLDER / name
