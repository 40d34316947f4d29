"""A job's progress, told to the page that waits for it. Only the worker's process needs this."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from raft_demo.shared.worker import Progress, Waiting, tell


class PageReporter:
    """A reporter (see ``raft_core.reporter.Reporter``) whose bars are a page's progress.

    Attributes:
        lines: what was said.
        warnings: what a person should not miss.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Bar]:
        yield Bar(name, total)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Bar:
    """One phase of a job."""

    def __init__(self, name: str, total: int):
        self._name, self._done, self._total = name, 0, total
        tell(Progress(name, 0, total))

    def advance(self, n: int = 1) -> None:
        """So many items more are done.

        Raises:
            GivenUp: nobody waits for the job any more.
        """
        self._done += n
        tell(Progress(self._name, self._done, self._total))


def waiting(event: Waiting) -> str:
    """Where in the line a visitor stands."""
    return f"{event.ahead} other is before you" if event.ahead == 1 else f"{event.ahead} others are before you"
