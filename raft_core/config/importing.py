"""Classes and functions by name: a short name, an import path, or a file of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from raft_core.bundled import PACKAGES
from raft_core.config.listing import public_names, short_names
from raft_core.errors import ConfigError, nearest
from raft_core.reading.files import excerpt, home_path, is_file


def resolve(path: str, kind: str) -> tuple[Any, str]:
    """(class or function, its full path) of a short name, ``package.module.Name``, ``package.module:name`` or ``file.py:name``.

    Raises:
        ConfigError: there is none; names the nearest one.
    """
    from raft_core.rewards.function import import_file, import_module, refuse_standard_library, split_path

    if ":" in path:
        place, name = split_path(path)
        module = import_file(Path(place), path) if place.endswith(".py") else import_module(place, path)
        return member(module, name, path), path
    if path.endswith(".py"):
        raise ConfigError(f"{path!r} is a file: name the class or function in it, {path}:NAME")
    if "." not in path:
        path = full_path(path, kind)
    path = present_path(path, kind)
    module_name, _, name = path.rpartition(".")
    look_here()
    refuse_standard_library(module_name, path)
    try:
        module = import_module(module_name, path)
    except ConfigError as error:
        raise ConfigError(f"{error}{nearest(name, public_names(kind))}") from error
    return member(module, name, path), path


def present_path(path: str, kind: str) -> str:
    """The import path as it is now: a class of these packages may have moved since a run folder named it by its module."""
    name = path.rpartition(".")[2]
    known = short_names(kind).get(name, [])
    ours = path.split(".")[0] in PACKAGES and path not in known
    return known[0] if ours and len(known) == 1 else path


def full_path(name: str, kind: str) -> str:
    """The import path of a short name.

    Raises:
        ConfigError: there is none, or more than one.
    """
    known = short_names(kind)
    if name not in known:
        raise ConfigError(f"there is no {kind} called {name!r}{nearest(name, public_names(kind))}")
    if len(known[name]) > 1:
        raise ConfigError(f"{name!r} is ambiguous: give the full path, one of {', '.join(known[name])}")
    return known[name][0]


def member(module: Any, name: str, path: str) -> Any:
    """The class or function of this name in a module.

    Raises:
        ConfigError: there is none; names the nearest one.
    """
    target = getattr(module, name, None)
    if target is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"{path!r}: {path.removesuffix(name).rstrip('.:')} has no {name!r}{nearest(name, public)}")
    if not callable(target):
        raise ConfigError(f"{path!r} is {excerpt(repr(target), 60)}, not a class or a function")
    return target


def located(path: str, base: Path | None) -> str:
    """``file.py:name`` with the file's absolute path: here, else beside the configuration; any other path as it is."""
    file, colon, name = path.rpartition(":")
    if not colon or not file.endswith(".py"):
        return path
    candidates = [home_path(file)] + ([base / file] if base else [])
    found = next((candidate for candidate in candidates if is_file(candidate)), candidates[0])
    return f"{found.resolve()}:{name}"


def anchored(text: str, base: Path | None) -> str:
    """A file or folder by its absolute path, so that a stored configuration holds from any folder; other text as it is.

    Text counts as a file or folder when there is one, here or else beside the configuration, and it looks like one: it has a
    separator or a suffix, or names a folder with a model in it. A plain word (an architecture, a device) stays a word.
    """
    if located(text, base) != text and is_file(located(text, base).rpartition(":")[0]):
        return located(text, base)
    if not text.strip():
        return text
    path = home_path(text)
    for candidate in (path, base / path) if base else (path,):
        try:
            there = candidate.exists() and (len(path.parts) > 1 or path.suffix or holds_model(candidate))
        except (OSError, ValueError):  # too long for a name, or with a null in it: no path
            return text
        if there:
            return str(candidate.resolve())
    return text


def holds_model(folder: Path) -> bool:
    return any(file.suffix in (".json", ".safetensors") for file in folder.glob("*"))


def look_here() -> None:
    """A console script does not have the current folder on its path; a user's ``my_module.MyReward`` is usually there."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
