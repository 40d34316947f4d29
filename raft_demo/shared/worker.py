"""The process that does the work: it keeps models loaded and takes one job at a time, in the order in which they came.

A job is a generator function, named ``module:function`` as the worker imports it; what it yields, or what anything below it
tells, arrives, one by one, where it was asked for. The web process imports neither torch nor a model, and outlives the worker:
when that process ends (out of memory, say), the job that it was at fails in words and the next one gets a new process.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import multiprocessing
import queue
import threading
import traceback
from collections.abc import Generator
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


class GivenUp(BaseException):
    """Nobody waits for this job any more. No error, and nothing that catches errors may take it for one."""


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
        self._pipe: Connection | None = None
        self._closed = False
        threading.Thread(target=self._serve, daemon=True, name="worker-dispatch").start()

    def run(self, function: str, /, **arguments: Any) -> Generator[Any, None, None]:
        """Ask for a job; yields ``Waiting`` while others come first, then whatever the job yields.

        Closing the iterator gives the job up: it is taken out of the line, or stopped at its next yield.

        Args:
            function: ``module:function``, a generator function; of this project, never from a visitor.
            arguments: plain data, and pictures.

        Raises:
            WorkError: the job failed, or too many are waiting.
        """
        ticket = self._take(function, arguments)
        told = None
        try:
            while True:
                try:
                    kind, value = ticket.events.get(timeout=POLL_S)
                except queue.Empty:
                    ahead = self._ahead(ticket)
                    if ahead and ahead != told:
                        told = ahead
                        yield Waiting(ahead)
                    continue
                if kind == "end":
                    return
                if kind == "error":
                    raise WorkError(value)
                yield value
        finally:
            ticket.given_up.set()
            self._leave(ticket)

    def result(self, function: str, /, **arguments: Any) -> Any:
        """The last thing that a job yields; None when it yields nothing.

        Raises:
            WorkError: as ``run``.
        """
        last = None
        for event in self.run(function, **arguments):
            if not isinstance(event, (Waiting, Progress)):
                last = event
        return last

    @property
    def length(self) -> int:
        """Jobs in the line, the one that is worked at included."""
        return len(self._tickets)

    def close(self) -> None:
        """End the process; jobs in the line fail."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        process = self._process  # the other thread forgets it as soon as it ends
        if process is not None:
            process.terminate()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    # ------------------------------------------------------------------ the line

    def _take(self, function: str, arguments: dict[str, Any]) -> _Ticket:
        with self._changed:
            if self._closed:
                raise WorkError("the app is being shut down")
            if len(self._tickets) > self._waiting:
                raise WorkError(f"{self._waiting} others are waiting already; try again in a minute")
            ticket = _Ticket(next(self._numbers), function, arguments)
            self._tickets.append(ticket)
            self._changed.notify_all()
            return ticket

    def _ahead(self, ticket: _Ticket) -> int:
        with self._changed:
            return self._tickets.index(ticket) if ticket in self._tickets else 0

    def _leave(self, ticket: _Ticket) -> None:
        """Takes a ticket that is still waiting out of the line; the first one leaves when its job has stopped."""
        with self._changed:
            if ticket in self._tickets[1:]:
                self._tickets.remove(ticket)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tickets or self._closed)
                if self._closed:
                    for ticket in self._tickets:
                        ticket.events.put(("error", "the app is being shut down"))
                    return
                ticket = self._tickets[0]
            try:
                self._work(ticket)
            except (EOFError, OSError):
                code = self._gone()
                ticket.events.put(
                    ("error", f"the process that does the work ended (code {code}), perhaps for want of memory; ask for less")
                )
            except Exception:
                log.exception("the worker cannot be reached")
                ticket.events.put(("error", UNEXPECTED))
            finally:
                with self._changed:
                    self._tickets.remove(ticket)

    def _work(self, ticket: _Ticket) -> None:
        if ticket.given_up.is_set():
            return
        pipe = self._reached()
        pipe.send((ticket.function, ticket.arguments))
        while True:
            kind, value = pipe.recv()
            if kind == "log":
                log.error("%s", value)
                continue
            ticket.events.put((kind, value))
            if kind in ("end", "error"):
                return
            pipe.send(not ticket.given_up.is_set())

    # ------------------------------------------------------------------ the process

    def _reached(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")  # a fork would copy the web server's threads and locks
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_main, args=(theirs,), daemon=True, name="raft-demo-worker")
            self._process.start()
            theirs.close()
        return self._pipe

    def _gone(self) -> int | None:
        process, self._process = self._process, None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        process.join(5)
        return process.exitcode


_pipe: Connection | None = None  # in the worker's process alone: the way to the web process


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
    if isinstance(error, RaftError) and not isinstance(error, DeviceError):
        return str(error)
    from raft_core.machine.out_of_memory import is_out_of_memory

    if is_out_of_memory(error) or isinstance(error, DeviceError):
        return f"The device cannot do this: {error}. Ask for fewer or smaller samples."
    return UNEXPECTED
