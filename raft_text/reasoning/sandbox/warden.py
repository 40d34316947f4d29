"""The process that runs programs: it forks itself for each of them, watches the child, and passes its answer on.

Started by ``pool.py`` as a script with an empty environment and nothing of the trainer's memory. It imports what programs may
import, gives up what it can (``confine.wall_off``), checks on a child that the walls hold, and then serves: a program in over
stdin, an outcome out over stdout, until stdin ends. It never runs a program itself.

Frames: 4 bytes big-endian length, then the content. In: a program as UTF-8. Out: the status's letter and a text as UTF-8.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import struct
import sys
import time
import warnings
from dataclasses import dataclass, replace

import confine  # pyright: ignore[reportMissingImports] - a neighbour of this script

ENTRY = "solution"
# Not a wall, the kernel is; they only make a program's mistake readable.
HIDDEN = ("open", "exec", "eval", "compile", "input", "breakpoint", "exit", "quit", "help", "copyright", "credits", "license")
PRELOADED = (
    "unicodedata",
    "_strptime",
    "encodings.utf_8",
    "encodings.ascii",
    "collections.abc",
)  # imported late, by C code in the program's name
# What a package imports in the middle of its work (SymPy when it solves and integrates), when a child can no longer read files.
LATE = {
    "antlr4": ("LL1Analyzer",),
    "sympy": (
        *(
            "combinatorics",
            "tensor.tensor",
            "codegen.ast",
            "concrete.delta",
            "physics.units",
            "physics.matrices",
            "sets.setexpr",
        ),
        *("sets.handlers.functions", "sets.handlers.issubset", "logic.algorithms.lra_theory"),
        *("assumptions.wrapper", "assumptions.satask", "assumptions.lra_satask", "assumptions.facts"),
        *(f"assumptions.handlers.{name}" for name in ("calculus", "common", "matrices", "ntheory", "order", "sets")),
        *("integrals.heurisch", "integrals.manualintegrate", "integrals.risch"),
        *("matrices.expressions.factorizations", "matrices.expressions.fourier"),
    ),
}
BOUND = ("math", "sympy")  # ReFT's programs use them without an import
ANSWER, ERROR, MEMORY = b"v", b"e", b"m"  # letters that a child writes before its text
TIMEOUT, OUTPUT, CRASHED = b"t", b"o", b"c"  # and those that are said of it
PIPE = 3  # the only descriptor of a child that leads anywhere
SHOWN_CHARACTERS = 200  # of an exception


@dataclass(frozen=True)
class Rules:
    """What ``pool.py`` asks for, see ``Limits`` there."""

    cpu_s: int
    wall_s: float
    memory_bytes: int
    answer_bytes: int
    imports: list[str]


# --- In the child -----------------------------------------------------------------------------------------------------


def run(source: str, imports: list[str]) -> bytes:
    """The child's answer: a letter and a text. Whatever the program does to this process, it does to itself."""
    try:
        namespace = {"__name__": "__program__", "__builtins__": _builtins(imports)}
        namespace.update({name: sys.modules[name] for name in BOUND if name in imports})
        exec(compile(source, "<program>", "exec", dont_inherit=True), namespace)
        solution = namespace.get(ENTRY)
        if not callable(solution):
            return ERROR + f"the program defines no function {ENTRY}()".encode()
        return ANSWER + as_text(solution()).encode("utf-8", "replace")
    except MemoryError:
        return MEMORY
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are the program's too
        return ERROR + _describe(error)


def as_text(value: object) -> str:
    """A value as ``answers.number`` reads it: digits for any number, the only item of a list of one, else ``str``."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return repr(float(value)) if isinstance(value, float) else str(value)


def _describe(error: BaseException) -> bytes:
    try:
        return f"{type(error).__name__}: {error}"[:SHOWN_CHARACTERS].encode("utf-8", "replace")
    except BaseException:  # noqa: BLE001 - its __str__ is the program's
        return b"an exception that cannot be shown"


def _print(*_values: object, **_options: object) -> None:
    """A program's ``print``: its answer is what it returns."""


def _builtins(imports: list[str]) -> dict[str, object]:
    real_import = builtins.__import__

    def limited_import(name, globals=None, locals=None, fromlist=(), level=0):
        if level or (name.partition(".")[0] not in imports and name not in PRELOADED):
            raise ImportError(f"a program may not import {name}, only {', '.join(imports)}")
        return real_import(name, globals, locals, fromlist, level)

    shown = {name: value for name, value in vars(builtins).items() if name not in HIDDEN}
    return {**shown, "__import__": limited_import, "print": _print}


def _child(rules: Rules, confined: Confined, source: str | None, pipe: int) -> None:
    """Never returns. Without a ``source`` it checks that the walls hold, and answers with what does not."""
    for descriptor in (0, 1, 2):
        os.dup2(confined.null, descriptor)
    os.dup2(pipe, PIPE)
    os.closerange(PIPE + 1, 1 << 16)
    confine.lock(confined.seccomp, confined.caps)
    if source is None:
        reply = ANSWER + "; ".join(confine.escapes(confined.caps)).encode()
    else:
        random.seed(0)  # the same program gives the same answer; a fork would seed it anew
        reply = run(source, rules.imports)
    while reply:
        reply = reply[os.write(PIPE, reply) :]
    os._exit(0)


# --- In the warden ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Confined:
    """What every child is locked with: the filter, the caps (whole address space), and an open /dev/null.

    ``proc`` is an open /proc, for the warden alone.
    """

    seccomp: confine.Program
    caps: confine.Caps
    null: int
    proc: int | None


def answer(rules: Rules, confined: Confined, source: str | None) -> tuple[bytes, bytes]:
    """(letter of the outcome, text) of one program, in a child of its own."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _child(rules, confined, source, into)
        finally:  # a wall that cannot be put up: no answer, and above all no program
            os._exit(1)
    os.close(into)
    try:
        return _watch(child, out, rules, confined)
    finally:
        os.close(out)


def _watch(child: int, out: int, rules: Rules, confined: Confined) -> tuple[bytes, bytes]:
    poller = select.poll()
    poller.register(out, select.POLLIN)
    deadline = time.monotonic() + rules.wall_s
    got, verdict = b"", None
    while verdict is None:
        left = deadline - time.monotonic()
        if left <= 0 and _waits_for_a_cpu(child, confined.proc):
            deadline = time.monotonic() + rules.wall_s  # a busy machine is not its fault; the CPU limit still stands
        elif left <= 0:
            verdict = TIMEOUT, f"longer than {rules.wall_s:g} s".encode()
        elif poller.poll(left * 1000):
            part = os.read(out, 1 << 16)
            if not part:
                break
            got += part
            if len(got) > rules.answer_bytes + 1:
                verdict = OUTPUT, f"an answer of more than {rules.answer_bytes} bytes".encode()
    os.kill(child, signal.SIGKILL)  # at the end of its pipe it is gone, or as good as
    _, status, used = os.wait4(child, 0)
    return verdict or _judge(got, status, used.ru_utime + used.ru_stime, rules)


def _waits_for_a_cpu(child: int, proc: int | None) -> bool:
    """Whether a child computes or would if it were let, rather than waits for something else; False where that is not known."""
    if proc is None:
        return False
    try:
        handle = os.open(f"{child}/stat", os.O_RDONLY, dir_fd=proc)
    except OSError:
        return False
    state = os.read(handle, 4096).rpartition(b") ")[2][:1]
    os.close(handle)
    return state in (b"R", b"D")


def _judge(got: bytes, status: int, cpu_s: float, rules: Rules) -> tuple[bytes, bytes]:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU or (number == signal.SIGKILL and cpu_s >= rules.cpu_s):
            return TIMEOUT, f"more than {rules.cpu_s} s of CPU".encode()
        return CRASHED, signal.Signals(number).name.encode()
    if not got:
        return ERROR, b"the program ended without an answer"
    return (got[:1], got[1:]) if got[:1] in (ANSWER, ERROR, MEMORY) else (ERROR, b"the program wrote past its answer")


def prepare(rules: Rules) -> tuple[Confined, dict[str, str]]:
    """Import what programs may import, put up the walls, and look whether they hold.

    Raises:
        RefusedError: they do not, or something cannot be imported.
    """
    seccomp = confine.filter_for(confine.machine())
    for name in (*PRELOADED, *rules.imports):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise confine.RefusedError(f"programs are to import {name}, which cannot be imported: {error}") from error
        for late in LATE.get(name, ()):
            with contextlib.suppress(ImportError):  # of another version
                importlib.import_module(f"{name}.{late}")
    null = os.open(os.devnull, os.O_RDWR)
    caps = confine.Caps(rules.cpu_s, confine.mapped_bytes() + rules.memory_bytes)
    confined = Confined(seccomp, caps, null, _open_proc())
    layers = confine.wall_off()
    letter, text = answer(replace(rules, answer_bytes=4096), confined, None)
    if (letter, text) != (ANSWER, b""):
        why = f"a program could {text.decode()}" if letter == ANSWER else f"its process could not be locked ({text.decode()})"
        raise confine.RefusedError(f"the walls do not hold: {why}")
    required = {
        "system calls": "in force: computing and answering only; no file, network, process, signal or executable memory",
        "limits": f"in force: {rules.cpu_s} s of CPU, {rules.wall_s:g} s in all, {rules.memory_bytes >> 20} MiB, no file",
    }
    return confined, {**required, **layers}


def _open_proc() -> int | None:
    try:
        return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None


def main() -> None:
    rules = Rules(**json.loads(sys.argv[1]))
    del sys.path[0]  # this folder: a program's `import` must not find these files
    warnings.simplefilter("ignore")  # showing one reads source files, which a program cannot
    try:
        confined, layers = prepare(rules)
    except (confine.RefusedError, OSError) as error:
        _send(b"r", str(error).encode())
        return
    os.dup2(confined.null, 2)
    _send(b"h", json.dumps(layers).encode())
    gc.collect()
    gc.freeze()  # a child's collector would touch, and so copy, every page that it shares with this process
    while (header := _receive(4)) is not None:
        source = _receive(*struct.unpack(">I", header))
        if source is None:
            return
        _send(*answer(rules, confined, source.decode("utf-8", "replace")))


def _receive(size: int) -> bytes | None:
    """Exactly ``size`` bytes of stdin, or None where it ends."""
    content = b""
    while len(content) < size:
        part = os.read(0, size - len(content))
        if not part:
            return None
        content += part
    return content


def _send(letter: bytes, text: bytes) -> None:
    frame = struct.pack(">cI", letter, len(text)) + text
    while frame:
        frame = frame[os.write(1, frame) :]


if __name__ == "__main__":
    main()
