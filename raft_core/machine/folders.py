"""Folders that nobody has named: the first that is free."""

from __future__ import annotations

import re
from pathlib import Path

from raft_core.errors import StoreError


def numbered(folder: Path) -> dict[int, Path]:
    """Number → the folder in ``folder`` that is called by it, ``0001``, in order. What else lies there is passed over."""
    try:
        found = [path for path in folder.iterdir() if re.fullmatch(r"[0-9]{4,9}", path.name) and path.is_dir()]
    except OSError:  # no such folder
        return {}
    numbers = {int(path.name): path for path in sorted(found) if path.name == f"{int(path.name):04d}"}
    return dict(sorted(numbers.items()))


def free_folder(wanted: Path) -> Path:
    """``wanted``, or the first of ``wanted-2``, ``wanted-3`` … that is not there or is an empty folder.

    Raises:
        StoreError: a folder on the way cannot be read, or is a file.
    """
    folder, number = wanted, 1
    try:
        while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error}; choose another output folder") from error
    if blocking := next((parent for parent in folder.parents if parent.is_file()), None):
        raise StoreError(f"{folder} cannot be made, for {blocking} is a file: choose another output folder")
    return folder
