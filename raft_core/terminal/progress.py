"""What a person sees while a run goes on: nested bars on a terminal, plain lines anywhere else, a table at the end."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from raft_core.machine.processes import Processes
from raft_core.reporter import Reporter, Silent

if TYPE_CHECKING:
    from raft_core.evaluation.table import Row

WIDTH = 80  # of everything that is not a terminal
LABEL = 22
REDRAW_S = 0.1


class Plain:
    """A reporter for logs and pipes: lines as they come, no bars.

    Args:
        console: where to write; standard output by default.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or plain_console()

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Plain]:
        yield self

    def advance(self, n: int = 1) -> None:
        """A log has no bar to move."""

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.line(textwrap.fill(text, WIDTH, initial_indent="warning: ", subsequent_indent="  "))


class Bar:
    """One bar of several."""

    def __init__(self, bars: Bars, progress: Progress, task: TaskID):
        self._bars = bars
        self._progress = progress
        self._task = task

    def advance(self, n: int = 1) -> None:
        self._progress.advance(self._task, n)
        self._bars.refresh()


class Bars:
    """A reporter for a terminal: a bar for every phase that is open, outer ones on top; lines scroll above them.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console):
        self.console = console
        self._progress: Progress | None = None
        self._drawn = 0.0

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Bar]:
        with self._live() as progress:
            task = progress.add_task(name, total=total)
            self.refresh(force=True)
            try:
                yield Bar(self, progress, task)
            finally:
                progress.remove_task(task)
                self.refresh(force=True)

    @contextlib.contextmanager
    def _live(self) -> Iterator[Progress]:
        """The display, begun by the outermost phase and ended with it."""
        if self._progress is not None:
            yield self._progress
            return
        columns = (
            TextColumn(f"{{task.description:<{LABEL}}}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        # Redrawn by us and not by rich's thread: under load the two take turns badly and wipe out a line above the bars.
        with Progress(*columns, console=self.console, transient=True, auto_refresh=False) as self._progress:
            try:
                yield self._progress
            finally:
                self._progress = None

    def refresh(self, force: bool = False) -> None:
        """Draw the bars as they are, at most every tenth of a second unless ``force``."""
        now = time.monotonic()
        if self._progress is not None and (force or now - self._drawn > REDRAW_S):
            self._progress.refresh()
            self._drawn = now

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        wrapped = textwrap.fill(text, self.console.width, initial_indent="warning: ", subsequent_indent="  ")
        self.console.print("[yellow]warning:[/yellow]" + escape(wrapped.removeprefix("warning:")), highlight=False)


def plain_console(stream: Any = None) -> Console:
    return Console(file=stream or sys.stdout, width=WIDTH, no_color=True, highlight=False, force_terminal=False)


def console() -> Console:
    """Standard output, as wide as the terminal is; 80 columns where there is none."""
    return Console() if sys.stdout.isatty() else plain_console()


def reporter() -> Reporter:
    """Bars on a terminal, lines anywhere else, nothing from any process but the first."""
    if not Processes.current().is_main:
        return Silent()
    target = console()
    return Bars(target) if target.is_terminal else Plain(target)


VERDICT_STYLE = {"better": "green", "worse": "red"}


def before_after(rows: Sequence[Row], titles: dict[str, str]) -> list[Table]:
    """A table per set of prompts, at most 80 columns wide.

    Args:
        rows: as ``evaluation_table.rows`` gives them.
        titles: by split, such as ``{"heldout": "12 held-out prompts × 4 samples"}``.
    """
    tables = []
    for split in dict.fromkeys(row.split for row in rows):
        table = Table(title=titles.get(split, split), title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("")
        for heading in ("before", "after", "change"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("95 % interval", justify="center", no_wrap=True)
        table.add_column("wins", justify="right", no_wrap=True)
        for row in rows:
            if row.split == split:
                name = row.name if row.role in ("diversity", "part") else f"{row.name} ({row.role})"
                change = (
                    f"[{VERDICT_STYLE[row.verdict]}]{row.difference}[/]" if row.verdict in VERDICT_STYLE else row.difference
                )
                table.add_row(escape(name), row.before, row.after, change, row.interval, row.win_rate.split(" (")[0])
        tables.append(table)
    return tables
