"""What ships with the packages: models, finished runs, prompt files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from raft_core.errors import DataError, nearest

PACKAGES = ("raft_core", "raft_diffusion", "raft_text")


@cache
def package_folder(package: str) -> Path | None:
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def bundled_models() -> dict[str, str]:
    """``bundled:NAME`` → folder of every model that ships with the packages."""
    return {
        f"bundled:{index.parent.relative_to(root)}": str(index.parent)
        for root in _bundled_roots()
        # Of diffusers, and language models of transformers; what else lies there is no model to begin from.
        for index in sorted([*root.rglob("model_index.json"), *root.glob("*/generation_config.json")])
    }


def model_defaults(model: str) -> dict[str, Any]:
    """What a bundled model brings with it (``raft_defaults.yaml`` in its folder); empty for any other model.

    ``policy`` = arguments of its policy, ``settings`` = fields of a configuration, ``rewards`` = arguments of rewards by name.
    """
    folder = bundled_models().get(model)
    path = Path(folder) / "raft_defaults.yaml" if folder else None
    if path is None or not path.is_file():
        return {}
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))


def bundled_runs() -> dict[str, Path]:
    """``bundled:examples/NAME`` → folder of every finished run that ships with the packages, without its rounds."""
    return {f"bundled:{found.parent.relative_to(root)}": found.parent for root in _bundled_roots() for found in _runs(root)}


def _runs(root: Path) -> list[Path]:
    return sorted((root / "examples").glob("*/run.json"))


def bundled_file(name: str) -> Path:
    """A file that ships with one of the packages, by its path under the package's ``bundled/``.

    Raises:
        DataError: there is none of that name; names the nearest one.
    """
    for root in _bundled_roots():
        if (root / name).is_file():
            return root / name
    known = [str(path.relative_to(root)) for root in _bundled_roots() for path in root.rglob("*") if path.is_file()]
    similar = [path for path in known if Path(path).suffix == Path(name).suffix]
    raise DataError(f"there is no bundled file {name!r}{nearest(name, similar)}")


def _bundled_roots() -> list[Path]:
    folders = [package_folder(package) for package in PACKAGES]
    return [folder / "bundled" for folder in folders if folder and (folder / "bundled").is_dir()]
