"""One process writes to a run folder; another that tries is told who."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from raft_core.errors import StoreError

NAME = ".lock"


class Lock:
    """Holds a folder until ``release`` or the end of the process, however it ends.

    The system keeps the lock, not the file's existence, so a killed process leaves nothing that has to be cleared away.

    Raises:
        StoreError: another process holds it, the folder cannot be written to, or the disk is full.
    """

    def __init__(self, folder: Path):
        try:
            import fcntl
        except ImportError:  # no such locks on Windows: two runs in one folder are then not caught
            self._handle = None
            return
        try:
            self._handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"{folder} cannot be written to: {error}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(self._handle, 200).decode(errors="replace").strip() or "another process"
            self.release()
            raise StoreError(f"{folder} is in use by {owner}; wait for it, end it, or choose another output folder") from error
        except OSError:  # a file system without locks, as some network shares are
            self.release()
            return
        try:
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError as error:
            self.release()
            raise StoreError(f"{folder / NAME} cannot be written: {error}; make room and begin again") from error

    def release(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = None


def holder(folder: Path) -> str | None:
    """Who writes to a folder now, in words; None when nobody does, or the system has no such locks."""
    try:
        import fcntl

        handle = os.open(folder / NAME, os.O_RDONLY | os.O_NONBLOCK)  # a pipe in its place would wait for a writer
    except (ImportError, OSError):  # nobody ever wrote there
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(handle, 200).decode(errors="replace").strip() or "another process"
    except OSError:
        return None
    finally:
        os.close(handle)
    return None
