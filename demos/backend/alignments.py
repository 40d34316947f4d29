"""Alignments that were begun from the page: a line of them in the runs folder, one at a time on the device.

Everything is in files, in ``.queue`` of the runs folder, so that the line outlives the app, and several apps may serve one
folder. Each alignment is a process of its own, which no page and no app takes with it when it goes. Whose turn it is, a lock on
one file tells: the process that aligns inherits it, and the system gives it back however that process ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from demos.backend.runs import inside
from raft_core.errors import DataError, DeviceError, RaftError, StoreError
from raft_core.files import write_json, write_text
from raft_core.lock import holder
from raft_core.manifest import RUN, read_history, read_run

log = logging.getLogger("raft.demo")
FOLDER, DEVICE, EDITING = ".queue", "device.lock", "edit.lock"
JOB = (sys.executable, "-m", "demos.backend.alignment_job")
TICK_S = 1.0
ATTEMPTS = 3  # a run that is killed so often without a new round is not begun again by itself
INTERRUPTED = 130
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


class Alignments:
    """The line.

    Args:
        runs: the runs folder.
        most: alignments that may wait.
        job: command of the process that aligns, less the runs folder and the name of the run.
    """

    def __init__(self, runs: Path, most: int = 8, job: Sequence[str] = JOB):
        self._runs = runs
        self._most = most
        self._job = tuple(job)
        self._children: list[subprocess.Popen] = []
        self._closed = threading.Event()

    @property
    def folder(self) -> Path:
        return self._runs / FOLDER

    # ------------------------------------------------------------------ what is there

    def entries(self) -> list[Entry]:
        """All, those that run and wait first, in their order, then the rest, the latest first."""
        found = [entry for path in self.folder.glob("*.json") if (entry := self._read(path)) is not None]
        going = sorted((e for e in found if e.state in ("running", "waiting")), key=lambda e: (e.state != "running", e.order))
        over = sorted((e for e in found if e.state not in ("running", "waiting")), key=lambda e: -e.order)
        return [*going, *over]

    def entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries() if entry.name == name), None)

    def ahead(self, name: str) -> int:
        """How many come before this one."""
        names = [entry.name for entry in self.entries() if entry.state in ("running", "waiting")]
        return names.index(name) if name in names else 0

    def file(self, name: str, kind: str) -> Path:
        """``yaml`` its configuration, ``prompts.txt`` its own prompts, ``log`` what it says, ``progress`` how far it is."""
        return self.folder / f"{name}.{kind}"

    def taken(self) -> set[str]:
        """Names that are not free."""
        return {path.name for path in self._runs.glob("*")} | {entry.name for entry in self.entries()}

    # ------------------------------------------------------------------ what a visitor can do

    def add(self, name: str, config: str) -> Entry:
        """Put an alignment in the line.

        Args:
            name: of the run; checked by whoever made it (``knobs.run_name``).
            config: YAML, checked.

        Raises:
            StoreError: the name is taken by now, or too many wait.
            DeviceError: this system has no such processes.
        """
        _require_posix()
        with self._editing():
            if (self._runs / name).exists() or self.entry(name):
                raise StoreError(f"there is a {name!r} by now; choose another name")
            self._require_room()
            write_text(self.file(name, "yaml"), config)
            return self._write(Entry(name, "waiting", time.time()))

    def resume(self, name: str) -> Entry:
        """Put an alignment that was stopped, or a run that was interrupted elsewhere, at the end of the line.

        Raises:
            DataError: there is no such run.
            StoreError: it is finished, it runs or waits already, or too many wait.
        """
        _require_posix()
        with self._editing():
            known = self.entry(name)
            if known is None and not (inside(self._runs, name) / RUN).is_file():
                raise DataError(f"there is no {name!r} among the runs; choose one of the list")
            if known and known.state in ("running", "waiting"):
                raise StoreError(f"{name} is {known.state} already")
            if self._is_finished(name):
                raise StoreError(f"{name} is finished: there is nothing to resume")
            if who := holder(self._runs / name):
                raise StoreError(f"{name} is in use by {who}; wait for it or end it")
            self._require_room()
            return self._write(Entry(name, "waiting", time.time()))

    def stop(self, name: str) -> Entry:
        """Take an alignment out of the line, or have it stop where it can go on from.

        Raises:
            DataError: it is not in the line.
        """
        with self._editing():
            entry = self.entry(name)
            if entry is None or entry.state not in ("running", "waiting"):
                raise DataError(f"{name} does not run: there is nothing to stop")
            if entry.state == "waiting":
                return self._write(replace(entry, state="stopped"))
            if not entry.stopping and self._device() is None:  # a second signal would end it at once
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(entry.pid, signal.SIGTERM)
            return self._write(replace(entry, stopping=True))

    # ------------------------------------------------------------------ the line moves on

    def start(self) -> None:
        """Move on from now on, until ``close``."""
        threading.Thread(target=self._keep_moving, daemon=True, name="alignments").start()

    def close(self) -> None:
        """Begin no others. What runs goes on."""
        self._closed.set()

    def _keep_moving(self) -> None:
        while not self._closed.wait(TICK_S):
            try:
                self.tick()
            except Exception:
                log.exception("the line of alignments cannot move on")

    def tick(self) -> None:
        """If nothing runs: settle what has ended, and begin what comes next."""
        self._children = [child for child in self._children if child.poll() is None]
        if os.name != "posix" or not any(entry.state in ("running", "waiting") for entry in self.entries()):
            return
        device = self._device()
        if device is None:
            return
        try:
            with self._editing():
                for entry in self.entries():
                    if entry.state == "running":  # whoever runs has the device, so this one has ended
                        self._write(self._settled(entry))
                waiting = [entry for entry in self.entries() if entry.state == "waiting"]
                if waiting and not self._closed.is_set():
                    self._begin(waiting[0], device)
        finally:
            os.close(device)

    def _begin(self, entry: Entry, device: int) -> None:
        for kind in ("end", "progress"):
            self.file(entry.name, kind).unlink(missing_ok=True)
        rounds = len(self._history(entry.name))
        attempts = 1 + (entry.attempts if rounds == entry.rounds else 0)
        command = [*self._job, str(self._runs), entry.name]
        with self.file(entry.name, "log").open("ab") as out:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, pass_fds=(device,)
            )
        self._children.append(child)
        self._write(replace(entry, state="running", pid=child.pid, stopping=False, attempts=attempts, rounds=rounds))

    def _settled(self, entry: Entry) -> Entry:
        """What has become of one whose process has ended."""
        code = _code(self.file(entry.name, "end"))
        over = replace(entry, pid=0, stopping=False)
        if code == 0 or self._is_finished(entry.name):
            return replace(over, state="finished")
        if entry.stopping:
            return replace(over, state="stopped")
        if code is not None and code != INTERRUPTED:
            return replace(over, state="failed", message=last_error(self.file(entry.name, "log")))
        fresh = len(self._history(entry.name)) > entry.rounds
        if entry.attempts >= ATTEMPTS and not fresh:
            return replace(over, state="failed", message=f"ended from outside {ATTEMPTS} times, perhaps for want of memory")
        return replace(over, state="waiting")  # killed: its turn comes before those that asked later

    # ------------------------------------------------------------------ files

    def _device(self) -> int | None:
        """A handle that holds the device until it is closed here and wherever it is inherited; None while another has it."""
        return _locked(self.folder / DEVICE, wait=False)

    @contextlib.contextmanager
    def _editing(self) -> Iterator[None]:
        handle = _locked(self.folder / EDITING, wait=True)
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def _require_room(self) -> None:
        waiting = sum(entry.state == "waiting" for entry in self.entries())
        if waiting >= self._most:
            raise StoreError(f"{waiting} alignments are waiting already; stop one of them, or come back later")

    def _is_finished(self, name: str) -> bool:
        try:
            return read_run(self._runs / name).get("status") == "finished"
        except StoreError:
            return False

    def _history(self, name: str) -> Sequence[object]:
        try:
            return read_history(self._runs / name)
        except (RaftError, ValueError, OSError):
            return []

    def _write(self, entry: Entry) -> Entry:
        write_json(self.file(entry.name, "json"), asdict(entry))
        return entry

    @staticmethod
    def _read(path: Path) -> Entry | None:
        try:
            return Entry(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # not one of this version's
            return None


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


def _code(file: Path) -> int | None:
    """With what a process has ended, as it has written itself; None when it had no time to."""
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["code"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _locked(file: Path, *, wait: bool) -> int | None:
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


def _require_posix() -> None:
    if os.name != "posix":
        raise DeviceError("alignments are begun from a page on Linux and macOS alone; here: raft align CONFIG")
