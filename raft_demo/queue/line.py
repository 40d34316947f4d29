"""Alignments that were begun from the page: a line of them in the runs folder, one at a time on the device.

Everything is in files, in ``.queue`` of the runs folder, so that the line outlives the app, and several apps may serve one
folder. Each alignment is a process of its own, which no page and no app takes with it when it goes. Whose turn it is, a lock on
one file tells: the process that aligns inherits it, and the system gives it back however that process ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from raft_core.errors import DataError, DeviceError, RaftError, StoreError
from raft_core.machine.files import write_text
from raft_core.machine.lock import holder
from raft_core.store.manifest import RUN, read_history, read_run
from raft_demo.queue.files import Entry, end_code, last_error, locked, read_entry, write_entry
from raft_demo.shared.runs import inside

log = logging.getLogger("raft.demo")
FOLDER, DEVICE, EDITING = ".queue", "device.lock", "edit.lock"
JOB = (sys.executable, "-m", "raft_demo.queue.job")
TICK_S = 1.0
ATTEMPTS = 3  # a run that is killed so often without a new round is not begun again by itself
INTERRUPTED = 130


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
        found = [entry for path in self.folder.glob("*.json") if (entry := read_entry(path)) is not None]
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
        code = end_code(self.file(entry.name, "end"))
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
        return locked(self.folder / DEVICE, wait=False)

    @contextlib.contextmanager
    def _editing(self) -> Iterator[None]:
        handle = locked(self.folder / EDITING, wait=True)
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
        return write_entry(self.file(entry.name, "json"), entry)


def _require_posix() -> None:
    if os.name != "posix":
        raise DeviceError("alignments are begun from a page on Linux and macOS alone; here: raft align CONFIG")
