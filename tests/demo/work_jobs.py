"""Jobs for the tests of the worker; its process imports them by name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raft_core.errors import ConfigError
from raft_demo.shared.worker import Progress, tell


def count(up_to: int) -> Iterator[int]:
    tell(Progress("below", 1, 2))
    yield from range(up_to)


def note(log: Path, name: str, wait_for: Path | None) -> Iterator[str]:
    """Writes its name into the log once the file is there."""
    while wait_for is not None and not wait_for.exists():
        time.sleep(0.02)
    with log.open("a") as file:
        file.write(name)
    yield name


def fail(expected: bool) -> Iterator[Any]:
    if expected:
        raise ConfigError("the prompt is empty")
    yield 1 / 0


def die() -> Iterator[Any]:
    os._exit(9)
    yield


def process_id() -> Iterator[int]:
    yield os.getpid()


def endless(log: Path) -> Iterator[str]:
    try:
        yield "begun"
        while True:
            time.sleep(0.02)
            tell("on it")
    finally:
        log.write_text("stopped")
