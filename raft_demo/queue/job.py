"""One alignment as a process of its own, begun by ``alignments``: what ``raft align`` and ``raft resume`` do, with its progress
in a file for the pages that watch."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raft_core.terminal.outcome import guarded
from raft_core.terminal.progress import Plain

NICENESS = 5  # the app stays quick beside it
TOLD_S = 0.3


class Watched(Plain):
    """Lines to the log, bars to a file.

    Args:
        file: JSON: [{"name", "done", "total"}] of the phases that are open, outer ones first.
    """

    def __init__(self, file: Path):
        super().__init__()
        self._file = file
        self._open: list[dict[str, Any]] = []
        self._told = 0.0

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[_Bar]:
        bar = {"name": name, "done": 0, "total": total}
        self._open.append(bar)
        self.tell(force=True)
        try:
            yield _Bar(self, bar)
        finally:
            self._open.remove(bar)
            self.tell(force=True)

    def tell(self, force: bool = False) -> None:
        """Write the file anew, at most every ``TOLD_S`` seconds unless ``force``."""
        if not force and time.monotonic() - self._told < TOLD_S:
            return
        self._told = time.monotonic()
        temporary = self._file.with_suffix(".new")
        with contextlib.suppress(OSError):  # a bar is not worth a run
            temporary.write_text(json.dumps(self._open), encoding="utf-8")
            temporary.replace(self._file)


class _Bar:
    def __init__(self, watched: Watched, bar: dict[str, Any]):
        self._watched, self._bar = watched, bar

    def advance(self, n: int = 1) -> None:
        self._bar["done"] += n
        self._watched.tell()


def carry_out(runs: Path, name: str) -> None:
    """Begin the run, or go on with it in the stage that it was in."""
    from raft_core.config.run_config import check, read_yaml
    from raft_core.store.manifest import RUN
    from raft_core.terminal.result import show_result
    from raft_core.workflows.align import align_run, is_finished, resume_run
    from raft_demo.queue.line import FOLDER

    folder, queue = runs / name, runs / FOLDER
    reporter = Watched(queue / f"{name}.progress")
    if not (folder / RUN).is_file():
        checked = check(read_yaml(queue / f"{name}.yaml"), name=name)
        reporter.line(f"run folder: {folder}")
        align_run(checked, reporter, folder=folder)
    elif not is_finished(folder):
        reporter.line(f"going on with {folder}")
        resume_run(folder, reporter)
    show_result(folder)


def main(runs: str, name: str) -> int:
    os.nice(NICENESS)
    code = guarded(lambda: carry_out(Path(runs), name))
    from raft_core.machine.files import write_json
    from raft_demo.queue.line import FOLDER

    write_json(Path(runs) / FOLDER / f"{name}.end", {"code": code})
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
