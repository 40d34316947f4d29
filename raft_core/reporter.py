"""Where progress goes: the core reports, and knows nothing of terminals."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Reporter(Protocol):
    """Where progress goes. The core calls it and knows nothing of terminals."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Any]:
        """A bar of ``total`` items; the value entered has ``advance(n)``."""
        ...

    def line(self, text: str) -> None:
        """One line for a person."""
        ...

    def warn(self, text: str) -> None:
        """One line that a person should not miss."""
        ...


class Silent:
    """A reporter that says nothing."""

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Silent]:
        yield self

    def advance(self, n: int = 1) -> None:
        """Nothing to move."""

    def line(self, text: str) -> None:
        """Nobody listens."""

    def warn(self, text: str) -> None:
        """Nobody listens."""


class Warner(Silent):
    """A reporter for when there is none: progress is not shown, warnings are Python's."""

    def warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)
