"""The process that does the work: it keeps models loaded and takes one job at a time, in the order in which they came.

A job is a generator function, named ``module:function`` as the worker imports it; what it yields, or what anything below it
``tell``s, arrives, one by one, where it was asked for. The web process imports neither torch nor a model, and outlives the worker: when that process ends (out of
memory, say), the job that it was at fails in words and the next one gets a new process.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import multiprocessing
import queue
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from raft_core.errors import DeviceError, RaftError

log = logging.getLogger("raft.demo")
POLL_S = 0.5
UNEXPECTED = "Something went wrong here that was not foreseen; the server's log says what. Your input is kept: try again."


@dataclass(frozen=True)
class Waiting:
    """So many jobs come before this one."""

    ahead: int


@dataclass(frozen=True)
class Progress:
    """How far a job is; ``total`` 0 when that is not known."""

    text: str
    done: int = 0
    total: int = 0


class GivenUp(BaseException):  # noqa: N818 - no error, and nothing that catches errors may take it for one
    """Nobody waits for this job any more."""


class WorkError(RaftError):
    """A job failed; says why in words a visitor understands."""


@dataclass(eq=False)
class _Ticket:
    number: int
    function: str
    arguments: dict[str, Any]
    events: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    given_up: threading.Event = field(default_factory=threading.Event)


class Worker:
    """One process, one job at a time, first come first served.

    Args:
        waiting: jobs that may wait; one more is refused.
    """

    def __init__(self, waiting: int = 64):
        self._waiting = waiting
        self._tickets: list[_Ticket] = []  # the first one is being worked at
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._process: Any = None
        self._pipe: Connection | None = None  # in the worker's process alone: the way to the web process


def tell(event: Any) -> None:
    """From within a job, however deep: hand something over as if the job had yielded it. Outside a worker nobody hears it.

    Raises:
        GivenUp: nobody waits for the job any more.
    """
    if _pipe is None:
        return
    _send("event", event)
    if not _received():
        raise GivenUp


def _main(pipe: Connection) -> None:
    """The worker's side: one job after another, until the web process closes its end."""
    import signal

    global _pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is the web process's to handle
    _pipe = pipe
    while True:
        function, arguments = _received()
        _do(function, arguments)


def _do(function: str, arguments: dict[str, Any]) -> None:
    try:
        for value in _function(function)(**arguments):
            tell(value)
        _send("end", None)
    except GivenUp:
        _send("end", None)
    except Exception as error:  # noqa: BLE001 - one visitor's error must not end the worker
        if not isinstance(error, RaftError):
            _send("log", traceback.format_exc())
        _send("error", _in_words(error))


def _send(kind: str, value: Any) -> None:
    """Raises SystemExit when the web process is gone: there is nobody left to work for."""
    assert _pipe is not None  # only the worker sends
    try:
        _pipe.send((kind, value))
    except OSError:
        raise SystemExit from None


def _received() -> Any:
    assert _pipe is not None
    try:
        return _pipe.recv()
    except (EOFError, OSError):
        raise SystemExit from None


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _in_words(error: Exception) -> str:
    from raft_core.out_of_memory import is_out_of_memory

    if is_out_of_memory(error) or isinstance(error, DeviceError):
        return f"The device cannot do this: {error}. Ask for fewer or smaller samples."
    return str(error) if isinstance(error, RaftError) else UNEXPECTED
