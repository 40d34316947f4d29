"""Recipes: where they are found, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raft_core.errors import ConfigError, nearest
from raft_core.reading.files import excerpt, home_path, is_file

if TYPE_CHECKING:
    from raft_core.config.run_config import Checked


DEFAULT = "shapes/resolution"


def checked_config(target: str | None, words: Sequence[str], *, begins: bool = False, elsewhere: bool = False) -> Checked:
    """The configuration that a command line names, read, overridden and checked.

    Args:
        begins: a run is about to begin, so its output folder must be free.
        elsewhere: it would be on another machine, so what this one lacks is only noted.

    Raises:
        ConfigError: with every mistake that there is.
    """
    path = find_config(target or DEFAULT)
    from raft_core.config.run_config import check, overridden, parse_overrides, read_yaml

    raw = overridden(read_yaml(path), parse_overrides(words))
    return check(raw, base=path.parent, name=path.stem, begins=begins, elsewhere=elsewhere)


def find_config(name: str) -> Path:
    """A configuration file: a path, or the name of a recipe such as ``shapes/resolution``.

    Raises:
        ConfigError: neither; names the nearest recipe.
    """
    path = home_path(name)
    if is_file(path):
        return path
    recipes = {str(p.relative_to(folder).with_suffix("")): p for folder in recipe_folders() for p in folder.rglob("*.yaml")}
    bare = name.removeprefix("configs/").removesuffix(".yaml")
    if bare in recipes:
        return recipes[bare]
    raise ConfigError(
        f"there is no configuration {excerpt(name, 200)!r}{nearest(bare, recipes)}; name a YAML file or one of the recipes"
    )


def recipe_folders() -> list[Path]:
    """Where recipes are: in the checkout, else where the wheel has put them."""
    root = Path(__file__).parents[2]
    # Installed, the root is site-packages, where a folder of this name is somebody else's.
    if (root / "pyproject.toml").is_file() and (root / "configs" / f"{DEFAULT}.yaml").is_file():
        return [root / "configs"]
    from importlib.metadata import PackageNotFoundError, files

    try:
        found = [Path(str(file.locate())) for file in files("raft-align") or [] if file.match(f"configs/{DEFAULT}.yaml")]
    except PackageNotFoundError:
        return []
    return [path.parents[1] for path in found]
