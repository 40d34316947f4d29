"""Folders that nobody has named: the first that is free."""

from __future__ import annotations

from pathlib import Path

from raft_core.errors import StoreError


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
