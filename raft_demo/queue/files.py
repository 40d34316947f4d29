"""The files of the line of alignments: an entry for each, what its process says and ends with, and locks."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from raft_core.machine.files import write_json
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import require_shape

SHAPE = {
    **dict.fromkeys(("name", "state", "message"), str),
    **dict.fromkeys(("pid", "attempts", "rounds"), int),
    "order": float,
    "stopping": bool,
}
State = Literal["waiting", "running", "stopped", "finished", "failed"]


@dataclass(frozen=True)
class Entry:
    """An alignment in the line, or one that has left it.

    Attributes:
        name: of the run.
        state: "stopped" was asked for and can be resumed; so can "failed".
        order: who asks first is served first.
        pid: of its process, while it runs.
        stopping: whether it was asked to stop.
        attempts: how often its process was begun since it last finished a round.
        rounds: that were finished when its process was begun.
        message: why it failed.
    """

    name: str
    state: State
    order: float
    pid: int = 0
    stopping: bool = False
    attempts: int = 0
    rounds: int = 0
    message: str = ""


def read_entry(file: Path) -> Entry | None:
    """None when it is not one of this version's."""
    try:
        found = require_shape(read_object(file), SHAPE, "", ("name", "state", "order"))
        return Entry(**found) if found["state"] in get_args(State) else None
    except (OSError, Unreadable, TypeError):
        return None


def write_entry(file: Path, entry: Entry) -> Entry:
    write_json(file, asdict(entry))
    return entry


def last_error(file: Path) -> str:
    """What a log ends with in words, from its last line with "error:" on; "" when there is none."""
    lines = tail(file, 100).splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[starts[-1] :]).removeprefix("error: ") if starts else ""


def tail(file: Path, lines: int, most_bytes: int = 64 * 1024) -> str:
    """The last lines of a text file; "" when it is not there."""
    try:
        with file.open("rb") as handle:
            handle.seek(max(0, file.stat().st_size - most_bytes))
            text = handle.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def end_code(file: Path) -> int | None:
    """With what a process has ended, as it has written itself; None when it had no time to."""
    try:
        return require_shape(read_object(file), {"code": int}, "", ("code",))["code"]
    except (OSError, Unreadable):
        return None


def locked(file: Path, *, wait: bool) -> int | None:
    """A handle that holds the lock of a file; None when another holds it. Without such locks there is nothing to hold."""
    import fcntl

    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
