"""Files that are whole or absent, whenever the process or the machine dies.

Everything is written beside its place under a temporary name, forced to the disk, and then renamed into place in one step. What
a killed process leaves behind has a temporary name, is never read, and is swept away by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from raft_core.errors import StoreError
from raft_core.reading.files import Unreadable, is_file, read_text

SUMS = "SHA256SUMS"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on leaving it becomes ``path`` in one step, after an error it is removed.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    temporary = _temporary(path)
    try:
        with _in_words(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _force(temporary)
            temporary.replace(path)
            _force(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; on leaving it becomes ``folder`` in one step, with the checksums of its files in it.

    A folder that is already there is replaced. Between the two renames neither is in place: readers see the folder as it was,
    as it will be, or not at all, never a mixture.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    temporary, old = _temporary(folder), _temporary(folder, "old")
    try:
        with _in_words(folder):
            temporary.mkdir(parents=True)
            yield temporary
            write_sums(temporary)
            for file in temporary.iterdir():
                _force(file)
            _force(temporary)
            if folder.exists():
                folder.replace(old)
            temporary.replace(folder)
            _force(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _temporary(path: Path, tag: str = "tmp") -> Path:
    # The process id keeps two processes that write the same name (a rescore beside a run) out of each other's way.
    return path.with_name(f".{path.name}.{os.getpid()}.{tag}")


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written. Only for who holds the lock of ``folder``."""
    for left in [*folder.rglob(".*.tmp"), *folder.rglob(".*.old")]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; a folder disappears whole, too."""
    if path.is_dir():
        old = _temporary(path, "old")
        path.replace(old)
        shutil.rmtree(old, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Strict JSON, which browsers and databases read: NaN and infinities become null."""
    write_text(path, json.dumps(strict(value), indent=2, ensure_ascii=False) + "\n")


def strict(value: Any) -> Any:
    """The same plain data with null for NaN and infinities, and plain numbers for NumPy's."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_sums(folder: Path) -> None:
    """A ``SHA256SUMS`` of the files in ``folder``, as ``sha256sum --check`` reads it."""
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What is wrong with a published folder, in words, or None when all its checksums hold."""
    try:
        lines = read_text(folder / SUMS).splitlines()
        for line in lines:
            digest, _, name = line.partition("  ")
            if not is_file(folder / name) or (folder / name).parent != folder:  # a pipe, or a file elsewhere
                return f"it cannot be read (there is no file {name[:60]!r})"
            if sha256(folder / name) != digest:
                return f"the checksum of {name} does not hold"
    except (OSError, Unreadable) as error:
        return f"it cannot be read ({error})"
    return None if lines else f"{SUMS} is empty"


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _force(path: Path) -> None:
    """Have the disk hold what was written; a folder's own entry too, where the system can do that."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn the system's errors into one that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None) or _rust_errno(error)
        if number in _FULL:
            raise StoreError(
                f"the disk is full: {path} could not be written ({_free(path)} free). Nothing half-written is left; make room "
                "and resume the run"
            ) from error
        raise StoreError(f"{path} could not be written: {error}") from error


def _rust_errno(error: Exception) -> int | None:
    """safetensors writes in Rust and tells the error number only in its message."""
    found = re.search(r"os error (\d+)", str(error))
    return int(found.group(1)) if found else None


def _free(path: Path) -> str:
    there = next((folder for folder in path.parents if folder.exists()), None)
    return f"{shutil.disk_usage(there).free / 2**20:.0f} MiB" if there else "nothing"


def plain_json(value: Mapping[str, Any]) -> str:
    return json.dumps(strict(dict(value)), sort_keys=True, ensure_ascii=False, default=str)
