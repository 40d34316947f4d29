"""Programs in, outcomes out: a pool of wardens, each a process of its own (``warden.py``) that confines what it runs.

Nothing that a model wrote is compiled or executed in this process; all that comes back is a letter and a bounded text.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import select
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raft_core.errors import ConfigError, DeviceError

WARDEN = Path(__file__).with_name("warden.py")
START_S = 180.0  # for a warden to import what programs may import, on a busy machine
GRACE_S = 120.0  # beyond a program's wall time, before the warden counts as lost
LONGEST_PROGRAM_BYTES = 1 << 16

Status = Literal["answer", "error", "memory", "timeout", "output", "crashed", "failed"]
STATUSES: dict[bytes, Status] = {
    b"v": "answer",
    b"e": "error",
    b"m": "memory",
    b"t": "timeout",
    b"o": "output",
    b"c": "crashed",
}

IMPORTS = (
    "bisect",
    "cmath",
    "collections",
    "datetime",
    "decimal",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "math",
    "numbers",
    "operator",
    "random",
    "re",
    "statistics",
    "string",
    "typing",
)


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Args:
        cpu_s: seconds of CPU, whole.
        wall_s: seconds in all, for what waits without computing; waiting for a busy CPU does not count.
        memory_mib: memory beyond the interpreter's own.
        answer_bytes: longest answer, as UTF-8.
    """

    cpu_s: int = 2
    wall_s: float = 10.0
    memory_mib: int = 256
    answer_bytes: int = 4096

    def __post_init__(self) -> None:
        few = {"cpu_s": 1, "wall_s": 0.1, "memory_mib": 1, "answer_bytes": 16}
        mistakes = [
            f"limits.{name} is {getattr(self, name)}, but must be at least {least}"
            for name, least in few.items()
            if getattr(self, name) < least
        ]
        if mistakes:
            raise ConfigError(mistakes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program.

    Attributes:
        status: ``answer``; or why there is none: ``error`` (an exception, no ``solution()``, a forbidden import), ``memory``,
            ``timeout``, ``output`` (an answer too long), ``crashed`` (ended by a signal). ``failed`` is no fault of the
            program: the sandbox itself broke down, twice.
        text: the value that ``solution()`` returned, as text; else the reason in words.
    """

    status: Status
    text: str


class Sandbox:
    """Runs untrusted Python programs, several at a time, and reports what their ``solution()`` returns.

    A program gets a process of its own that may compute and answer and nothing else: no file, network, process or signal, no
    import outside the list, within ``limits``. Random numbers are the same in every run.

    Linux on x86-64 or ARM, 64-bit. Elsewhere, and where a check at the start finds that the walls do not hold, programs are
    refused and not run with less.

    Args:
        limits: of one program.
        imports: modules that programs may import; each is loaded once, when the sandbox starts.
        workers: programs at a time; by default one for each CPU that this process may use, 8 at most.
    """

    def __init__(self, limits: Limits | None = None, imports: Sequence[str] = IMPORTS, workers: int | None = None):
        if workers is not None and workers < 1:
            raise ConfigError(f"workers is {workers}, but at least 1 is needed to run a program")
        if isinstance(imports, str) or not all(name.isidentifier() for name in imports):
            raise ConfigError(f"imports is {imports!r}, but must be a list of top-level module names, such as [math, sympy]")
        self.limits = limits or Limits()
        self.imports = tuple(imports)
        self.workers = workers
        self.layers: dict[str, str] = {}
        self._wardens: queue.SimpleQueue[_Warden | None] = queue.SimpleQueue()
        self._threads = 0
        self._close: Callable[[], object] | None = None

    @staticmethod
    def unsupported() -> str | None:
        """Why programs cannot be confined on this system, as far as that shows without trying; None when they can be."""
        if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
            return None
        return (
            f"programs cannot be confined on {platform.system()} {platform.machine()} and are not run unconfined; "
            "use 64-bit Linux (x86-64 or ARM; on Windows, WSL 2), or reasoning in words"
        )

    def start(self) -> dict[str, str]:
        """Start the first worker, if none is running, and learn which layers are in force.

        Returns:
            layer → "in force: …" or "not in force: …". ``system calls`` and ``limits`` are always in force.

        Raises:
            DeviceError: programs cannot be confined here.
            ConfigError: a module of ``imports`` cannot be imported.
        """
        if self._close is None:
            problem = self.unsupported()
            if problem:
                raise DeviceError(problem)
            first = self._new_warden()
            self.layers = first.layers
            self._threads = self.workers or min(8, len(os.sched_getaffinity(0)))
            for warden in (*[None] * (self._threads - 1), first):  # the others start when there is work for them
                self._wardens.put(warden)
            self._close = weakref.finalize(self, _stop_all, self._wardens)
        return self.layers

    def describe(self) -> str:
        """One line for a person: the layers in force, and those that this system does not allow. Starts the sandbox."""
        layers = self.start()
        return "sandbox for programs: " + "; ".join(f"{name} {state}" for name, state in layers.items())

    def run(self, programs: Sequence[str]) -> list[Outcome]:
        """The outcome of each program, in the same order; equal programs are run once.

        Raises:
            DeviceError, ConfigError: as ``start``.
        """
        self.start()
        different = list(dict.fromkeys(programs))
        if not different:
            return []
        with ThreadPoolExecutor(min(self._threads, len(different))) as threads:  # they only wait
            outcomes = dict(zip(different, threads.map(self._run_one, different), strict=True))
        return [outcomes[program] for program in programs]

    def close(self) -> None:
        """End all workers; the next ``run`` starts new ones."""
        if self._close is not None:
            self._close()
            self._close = None

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _new_warden(self) -> _Warden:
        return _Warden(self.limits, self.imports)

    def _run_one(self, program: str) -> Outcome:
        content = program.encode("utf-8", "replace")
        if len(content) > LONGEST_PROGRAM_BYTES:
            return Outcome("error", f"a program of {len(content)} bytes; at most {LONGEST_PROGRAM_BYTES} are run")
        warden = self._wardens.get()
        reason = ""
        try:
            for _ in range(2):  # a warden that is gone is replaced, once
                try:
                    warden = warden or self._new_warden()
                    return warden.exchange(content)
                except (_LostError, DeviceError) as error:
                    reason = str(error)
                    if warden:
                        warden.stop()
                    warden = None
            return Outcome("failed", reason)
        finally:
            self._wardens.put(warden)


def _stop_all(wardens: queue.SimpleQueue[_Warden | None]) -> None:
    while not wardens.empty():
        warden = wardens.get()
        if warden:
            warden.stop()


class _LostError(Exception):
    """The warden is gone or does not answer."""


class _Warden:
    """This side of one ``warden.py``."""

    def __init__(self, limits: Limits, imports: Sequence[str]):
        rules = {
            "cpu_s": limits.cpu_s,
            "wall_s": limits.wall_s,
            "memory_bytes": limits.memory_mib << 20,
            "answer_bytes": limits.answer_bytes,
            "imports": list(imports),
        }
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-B", str(WARDEN), json.dumps(rules)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**kept, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},  # and none of this process' secrets
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the trainer; without it the wardens find their stdin closed
            )
        except OSError as error:
            raise DeviceError(f"the sandbox for programs does not start: {sys.executable}: {error.strerror}") from error
        self.wall_s = limits.wall_s
        self.layers = self._greet()

    def _greet(self) -> dict[str, str]:
        try:
            letter, text = self._receive(time.monotonic() + START_S)
        except _LostError as error:
            self.process.kill()
            said = self.process.stderr.read().decode(errors="replace").strip() if self.process.stderr else ""
            self.stop()
            raise DeviceError(f"the sandbox for programs does not start: {said.splitlines()[-1] if said else error}") from None
        if letter == b"h":
            return json.loads(text)
        self.stop()
        if "cannot be imported" in text:
            raise ConfigError(f"{text}: install it, or take it out of imports")
        raise DeviceError(f"programs cannot be confined here and are not run unconfined: {text}; use reasoning in words")

    def exchange(self, program: bytes) -> Outcome:
        """
        Raises:
            _LostError: no answer.
        """
        deadline = time.monotonic() + self.wall_s + GRACE_S
        self._send(struct.pack(">I", len(program)) + program, deadline)
        letter, text = self._receive(deadline)
        if letter not in STATUSES:
            raise _LostError(f"the sandbox answered {letter!r}")
        return Outcome(STATUSES[letter], text)

    def _send(self, frame: bytes, deadline: float) -> None:
        assert self.process.stdin
        while frame:
            descriptor = self._wait_for(self.process.stdin, select.POLLOUT, deadline)
            try:
                frame = frame[os.write(descriptor, frame[: select.PIPE_BUF]) :]  # so much fits, and does not block
            except OSError as error:
                raise _LostError(f"the sandbox is gone ({error.strerror})") from error

    def _receive(self, deadline: float) -> tuple[bytes, str]:
        letter, size = struct.unpack(">cI", self._read(5, deadline))
        return letter, self._read(size, deadline).decode("utf-8", "replace")

    def _read(self, size: int, deadline: float) -> bytes:
        assert self.process.stdout
        content = b""
        while len(content) < size:
            part = os.read(self._wait_for(self.process.stdout, select.POLLIN, deadline), size - len(content))
            if not part:
                raise _LostError("the sandbox is gone")
            content += part
        return content

    @staticmethod
    def _wait_for(stream, event: int, deadline: float) -> int:
        poller = select.poll()
        poller.register(stream, event)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _LostError("the sandbox does not answer")
        return stream.fileno()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
