"""Taking hold of a run folder: a new one for a new run, an old one to go on with; and being told why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raft_core.errors import StoreError
from raft_core.machine.files import remove, sweep, write_json
from raft_core.machine.folders import numbered
from raft_core.machine.lock import NAME as LOCK
from raft_core.machine.lock import Lock
from raft_core.reading.files import excerpt
from raft_core.store.checkpoint import Keep, newest_whole
from raft_core.store.manifest import (
    CONFIG,
    FORMAT,
    RUN,
    changes,
    machine,
    now,
    plain,
    read_config,
    read_run,
    versions,
    write_config,
)


def begin(folder: Path, config: Mapping[str, Any], seed: int, keep: Keep) -> Lock:
    """Make a run of a folder that is empty or not there yet.

    Raises:
        StoreError: the folder holds something already, or cannot be written to.
    """
    require_empty(folder)
    lock = make_and_lock(folder)
    try:
        require_empty(folder)
        sweep(folder)
        write_config(folder, config)
        facts = {
            "format": FORMAT,
            "status": "running",
            "seed": seed,
            "started": now(),
            "versions": versions(),
            "machine": machine(),
        }
        # Last: a folder with a run.json is a run, and has all that it needs to be resumed. The configuration is in it, too, so
        # that a config.yaml that was changed since is noticed.
        write_json(folder / RUN, {**facts, "keep": asdict(keep), "config": plain(config)})
    except BaseException:
        lock.release()
        raise
    return lock


def take_over(folder: Path, config: Mapping[str, Any] | None, keep: Keep | None, force: bool) -> Lock:
    """Take hold of a run to go on with it.

    Args:
        config: what the run is to go on with; None = the run's ``config.yaml`` as it now is.

    Raises:
        StoreError: no run is there, another process has it, or the configuration has changed and ``force`` is not given.
    """
    if not (folder / RUN).exists():
        raise StoreError(f"{folder} holds no run ({RUN} is missing), so there is nothing to resume")
    lock = Lock(folder)
    try:
        sweep(folder)
        wanted = read_config(folder) if config is None else config
        if changed := changes(read_run(folder).get("config", {}), wanted):
            accept_changes(folder, wanted, changed, force)
        run = read_run(folder)
        kept = {"keep": asdict(keep)} if keep else {}
        # Nobody else holds the lock, so what is marked as running was killed; it runs again once it is read and found whole.
        killed = {"status": "interrupted", "reason": "its process was killed"} if run.get("status") == "running" else {}
        write_json(folder / RUN, {**run, **kept, **killed})
    except BaseException:
        lock.release()
        raise
    return lock


def require_empty(folder: Path) -> None:
    """Nothing is ever written over.

    Raises:
        StoreError: the folder holds a run, or anything else.
    """
    try:
        blocked = folder.exists() and not folder.is_dir()
    except (OSError, ValueError) as error:  # longer than a name can be, say
        why = getattr(error, "strerror", None) or error
        raise StoreError(f"{excerpt(folder, 80)} cannot be an output folder: {why}; choose another one") from None
    if blocked:
        raise StoreError(f"{folder} is a file; choose another output folder")
    if (folder / RUN).exists():
        rnd = newest_whole(folder)[0] or 0
        raise StoreError(
            f"{folder} already holds a run ({rnd} rounds finished): go on with it by `raft resume {folder}`, "
            "or choose another output folder"
        )
    # A run killed in its first instant has no more than these.
    foreign = [path.name for path in folder.glob("*") if path.name not in {LOCK, CONFIG} and not path.name.endswith(".tmp")]
    if foreign:
        raise StoreError(
            f"{folder} is not empty (it holds {sorted(foreign)[0]!r}) and is no run: choose an empty or new output folder"
        )


def make_and_lock(folder: Path) -> Lock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Lock(folder)
    except OSError as error:
        raise StoreError(f"the output folder {folder} cannot be made: {error}") from error


def accept_changes(folder: Path, config: Mapping[str, Any], changed: list[str], force: bool) -> None:
    """Go on with a changed configuration, if that is wanted: the unfinished round, begun under the old one, is dropped.

    Raises:
        StoreError: it is not wanted.
    """
    if not force:
        listed = "".join(f"\n  {line}" for line in changed)
        raise StoreError(
            f"the configuration is not the one that {folder} was begun with:{listed}\n"
            "Resume without changes, or go on with them by --force; the result is then not that of either configuration alone"
        )
    last = newest_whole(folder)[0] or 0
    for rnd, path in numbered(folder / "rounds").items():
        if rnd > last:
            remove(path)
    run = read_run(folder)
    entry = {"at": now(), "after_round": last, "changed": changed}
    write_config(folder, config)
    write_json(folder / RUN, {**run, "changes": [*run.get("changes", []), entry], "config": plain(config)})
