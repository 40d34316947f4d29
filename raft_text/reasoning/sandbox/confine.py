"""What the kernel is asked to forbid a program, layer by layer, and a check that it does.

Two layers are required, and hold on their own: a seccomp filter that lets through little more than computing and answering
(no file, no network, no process, no signal, no executable memory), and resource limits. The others are further walls behind
the first one, put up where the system allows it: an empty root directory, namespaces without a network, another user.

Runs inside the warden's process and knows nothing of this toolkit: the standard library only.

Source: Linux' ``Documentation/userspace-api/seccomp_filter.rst``; the system calls' numbers from the kernel's
``syscall_64.tbl`` (x86-64) and ``asm-generic/unistd.h`` (arm64).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x04000000, 0x08000000, 0x10000000, 0x40000000
NOBODY = 65534
SIGKILL = 9


class RefusedError(Exception):
    """Programs cannot be confined here, in words."""


# --- System calls -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Numbers of the system calls that a program may make.

    Attributes:
        audit: the kernel's number of the architecture; another one (32-bit calls) kills.
        plain: write, exit, exit_group, munmap, brk, mremap, madvise, futex, rt_sigreturn, sched_yield, clock_gettime,
            clock_getres, gettimeofday, getrandom.
        mapping: mmap and mprotect, allowed without PROT_EXEC.
    """

    audit: int
    plain: tuple[int, ...]
    mapping: tuple[int, ...]


MACHINES = {
    "x86_64": Machine(0xC000003E, (1, 60, 231, 11, 12, 25, 28, 202, 15, 24, 228, 229, 96, 318), (9, 10)),
    "aarch64": Machine(0xC00000B7, (64, 93, 94, 215, 214, 216, 233, 98, 139, 124, 113, 114, 169, 278), (222, 226)),
}

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # BPF: ld word at k; jump if == k; jump if & k; return k
NUMBER, ARCHITECTURE, THIRD_ARGUMENT = 0, 4, 16 + 2 * 8  # offsets in struct seccomp_data; low word, both are little-endian
KILL, ALLOW, DENY = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
PROT_EXEC = 4


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("code", ctypes.POINTER(Instruction))]


def filter_for(machine: Machine) -> Program:
    """The seccomp filter: what is not allowed fails with EPERM, which a Python program sees as ``PermissionError``."""
    tests = len(machine.plain) + len(machine.mapping)
    code = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, machine.audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    # After the tests: +0 deny, +1 look at the protection, +2 is it executable, +3 allow, +4 deny.
    for i, number in enumerate(machine.plain + machine.mapping):
        code.append((EQUAL, tests - i - 1 + (3 if number in machine.plain else 1), 0, number))
    code += [(RETURN, 0, 0, DENY), (LOAD, 0, 0, THIRD_ARGUMENT), (ANY_BIT, 1, 0, PROT_EXEC), (RETURN, 0, 0, ALLOW)]
    code += [(RETURN, 0, 0, DENY)]
    return Program(len(code), (Instruction * len(code))(*(Instruction(*line) for line in code)))


def machine() -> Machine:
    """
    Raises:
        RefusedError: no filter is written for this system.
    """
    if sys.platform != "linux" or platform.machine() not in MACHINES or sys.maxsize < 2**32:
        raise RefusedError(
            f"system calls can be filtered on 64-bit Linux ({', '.join(MACHINES)}), this is {platform.platform()}"
        )
    return MACHINES[platform.machine()]


def _prctl(option: int, value: int, pointer: ctypes.Structure | None = None) -> None:
    arguments = (ctypes.c_ulong(value), ctypes.byref(pointer) if pointer else ctypes.c_ulong(0))
    if libc.prctl(option, *arguments, ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# --- The warden's own walls, once per process -------------------------------------------------------------------------


def wall_off() -> dict[str, str]:
    """Give up, for good, what programs do not need: the network, the files, root's powers.

    Returns:
        layer → "in force: …" or "not in force: …". Not one of them is required, see the module.
    """
    root = os.geteuid() == 0
    return {
        "namespaces": _attempt("no network, no shared memory with others", _leave_namespaces, root),
        "files": _attempt("the root directory is empty and cannot be written to", _leave_files),
        "user": _attempt("nobody", _leave_root) if root else "in force: not root",
    }


def _attempt(what: str, step, *arguments) -> str:
    try:
        step(*arguments)
    except OSError as error:
        return f"not in force: {error.strerror}"
    return f"in force: {what}"


def _leave_namespaces(root: bool) -> None:
    flags = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | (0 if root else CLONE_NEWUSER)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _leave_files() -> None:
    """Make a directory that is removed at once the root: nothing is in it, and nothing can be made in it."""
    folder = tempfile.mkdtemp()
    handle = os.open(folder, os.O_DIRECTORY)
    Path(folder).rmdir()
    os.fchdir(handle)
    os.close(handle)
    os.chroot(".")
    os.chdir("/")


def _leave_root() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


# --- A program's own walls, in the child that runs it -----------------------------------------------------------------


@dataclass(frozen=True)
class Caps:
    """Limits of one program: seconds of CPU, and bytes beyond what the warden itself has mapped."""

    cpu_s: int
    memory_bytes: int


def mapped_bytes() -> int:
    """Address space of this process; to be read while /proc can be."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def lock(seccomp: Program, caps: Caps) -> None:
    """Put up the two required layers around this process; there is no way back.

    Args:
        seccomp: from ``filter_for``.
        caps: ``memory_bytes`` here is the whole address space, the warden's share included.
    """
    _prctl(PR_SET_PDEATHSIG, SIGKILL)
    limits = {
        resource.RLIMIT_CPU: (caps.cpu_s, caps.cpu_s + 1),  # first SIGXCPU, which tells why; then SIGKILL
        resource.RLIMIT_AS: (caps.memory_bytes, caps.memory_bytes),
    }
    nothing = (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK)
    for kind, values in {**limits, **dict.fromkeys((*nothing, resource.RLIMIT_NOFILE), (0, 0))}.items():
        resource.setrlimit(kind, values)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, seccomp)


def escapes(caps: Caps) -> list[str]:
    """What a locked process can do and should not; empty when the walls hold. To be called in a child, after ``lock``.

    Asks the C library and not Python's, which a filter that is not in force would let through just the same.
    """
    libc.malloc.restype = ctypes.c_void_p
    attempts = {
        "open a file": lambda: libc.open(b"/", 0),
        "open a socket": lambda: libc.socket(2, 1, 0),
        "signal its parent": lambda: libc.kill(os.getppid(), 0),
        "trace a process": lambda: libc.ptrace(16, 0, 0, 0),
        "run another program": lambda: libc.execve(b"/", None, None),
        "copy a file descriptor": lambda: libc.dup(0),
        "start a process": _fork,
    }
    found = []
    for what, attempt in attempts.items():
        ctypes.set_errno(0)
        if attempt() != -1 or ctypes.get_errno() != errno.EPERM:
            found.append(what)
    if libc.malloc(ctypes.c_size_t(caps.memory_bytes)):
        found.append("use more memory than its limit")
    return found


def _fork() -> int:
    child = libc.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(0)
    return child
