"""How a command ends: exit codes, errors in words, and signals."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType

from raft_core.errors import RaftError
from raft_core.reading.files import excerpt

#: How libraries are told to keep to errors.
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "TORCH_CPP_LOG_LEVEL": "ERROR"}
INTERRUPTED = 130
UNEXPECTED = 1
#: What the system says of a path that somebody gave, and that cannot be one.
NO_PATH = frozenset({errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EROFS, errno.ELOOP})


def guarded(command: Callable[[], int | None], *, debug: bool = False) -> int:
    """Run a command; a user's mistakes are printed without a traceback.

    Returns:
        0 or what the command returns; 2 for a mistake; 130 after a signal; 1 for anything unexpected.
    """
    try:
        with signals():
            return command() or 0
    except RaftError as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        if debug:
            traceback.print_exc()
        _say(str(interrupt) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `raft list | head`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNEXPECTED
    except OSError as error:
        if error.errno not in NO_PATH or error.filename is None:
            return _unforeseen()
        if debug:
            traceback.print_exc()
        _say(f"error: {excerpt(error.filename, 80)}: {error.strerror}; give another path")
        return RaftError.exit_code
    except Exception:  # noqa: BLE001 - the last place where it can be said that a run's work is not lost
        return _unforeseen()


def _unforeseen() -> int:
    """Show the exception that is being handled."""
    traceback.print_exc()
    _say("error: this was not foreseen (see above); a run that was under way goes on by `raft resume RUN`")
    return UNEXPECTED


@contextlib.contextmanager
def without_library_warnings() -> Iterator[None]:
    """Inside, warnings of libraries are not shown: they speak to programmers, and name files and lines. Our own are told.

    Whoever asks Python for warnings (``-W``, ``PYTHONWARNINGS``) gets them all.
    """
    if sys.warnoptions:
        yield
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)

    def told(message: Warning | str, *_place: object, **_named: object) -> None:
        _say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=r"raft_(core|diffusion|text|cli|demo)\b")
        warnings.showwarning = told
        yield


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt, so that everything is left in order; the second ends at once."""

    def first(_number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, second)
        raise KeyboardInterrupt

    def second(_number: int, _frame: FrameType | None) -> None:
        os._exit(INTERRUPTED)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, first)
    except ValueError:  # not the main thread, as in a test or a notebook: signals are the caller's
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
