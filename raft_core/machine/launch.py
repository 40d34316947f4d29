"""Several processes on this machine that share one run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from raft_core.errors import ConfigError, DeviceError, ProcessLostError

GRACE_S = 30
POLL_S = 0.05
#: How accelerate is told to spread weights over processes (``accelerate launch --use_fsdp --fsdp_version 2`` sets the same).
SHARD = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@dataclass(frozen=True)
class Ended:
    """How the processes ended.

    Attributes:
        statuses: exit status of each, negative for a signal.
        first: rank of the one that failed first, and not because another had; None when none did.
        said: what that one wrote to its standard error, if it was kept.
    """

    statuses: Sequence[int]
    first: int | None = None
    said: str = ""


def run_together(
    command: Callable[[int], Sequence[str]],
    count: int,
    environment: Mapping[str, str] | None = None,
    *,
    timeout_s: float = float("inf"),
    keep_errors: bool = False,
) -> Ended:
    """Start a process per rank, wait for all, and end the others when one fails: they would wait for it.

    They meet at a store of this process. It has taken its port when they are told of it: a port that is looked up, let go and
    used a moment later may by then be another program's. It also outlives them all, so that nobody misses it on the way out.

    Args:
        command: of a rank.
        environment: for all of them, besides this process's own.
        keep_errors: keep what all but the first write to their standard errors, for ``Ended.said``.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    shared = {**os.environ, **(environment or {}), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    processes: list[subprocess.Popen] = []
    with contextlib.ExitStack() as files:
        errors: dict[int, IO[str]] = {}
        try:
            for rank in range(count):
                if keep_errors and rank:
                    errors[rank] = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
                own = {name: str(value) for name, value in {**group, "RANK": rank, "LOCAL_RANK": rank}.items()}
                # In a session of its own, so that a terminal's Ctrl-C reaches this process alone, which hands it on once.
                settings: dict[str, Any] = {"stderr": errors.get(rank), "start_new_session": True}
                processes.append(subprocess.Popen(list(command(rank)), env={**shared, **own}, **settings))
            first = _wait(processes, time.monotonic() + timeout_s)
        except KeyboardInterrupt:
            _end(processes)
            raise
        finally:
            _end(processes, grace_s=0)
        statuses = [process.returncode for process in processes]
        said = _text(errors[first]) if first in errors else ""
    return Ended(statuses, first, said)


def _wait(processes: Sequence[subprocess.Popen], deadline: float) -> int | None:
    """The rank of the process that failed and made the others fail; these have ended by themselves, or been given time to."""
    failed: list[int] = []
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        _add_failed(failed, processes)
        if failed:
            deadline = min(deadline, time.monotonic() + GRACE_S)
        time.sleep(POLL_S)
    _add_failed(failed, processes)
    own = [rank for rank in failed if processes[rank].returncode != ProcessLostError.exit_code]
    return next(iter([*own, *failed]), None)


def _add_failed(failed: list[int], processes: Sequence[subprocess.Popen]) -> None:
    failed += [rank for rank, process in enumerate(processes) if process.returncode and rank not in failed]


def _end(processes: Sequence[subprocess.Popen], grace_s: float = GRACE_S) -> None:
    """End what still runs: in order if there is time, else at once."""
    deadline = time.monotonic() + grace_s
    for process in processes:
        if grace_s and process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()


def require_launchable(count: int) -> None:
    """That this process may start so many.

    Raises:
        ConfigError: fewer than one, or this process is one of several itself.
        DeviceError: fewer accelerators than processes.
    """
    if count < 1:
        raise ConfigError(f"--processes is {count}, but must be at least 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "--processes starts processes by itself: leave it out where accelerate launch or torchrun has started them"
        )
    _placement(count)


def launch(module: str, words: Sequence[str], count: int, *, shard: bool = False) -> None:
    """Run ``python -m MODULE WORDS`` in so many processes that share one run.

    Args:
        shard: spread the weights over them.

    Raises:
        ConfigError: fewer than one, or this process is one of several itself.
        DeviceError: fewer accelerators than processes, or one of them failed.
    """
    require_launchable(count)
    environment = {**_placement(count), **(SHARD if shard else {})}
    ended = run_together(lambda _: [sys.executable, "-m", module, *words], count, environment, keep_errors=True)
    if ended.first is None:
        return
    said = "" if not ended.said else f"\nit said:\n{ended.said}"
    status = ended.statuses[ended.first]
    how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
    raise DeviceError(f"process {ended.first} of {count} {how}, and the others could not go on without it{said}")


def _placement(count: int) -> dict[str, str]:
    """A GPU for each process, or a share of the CPU's cores.

    Raises:
        DeviceError: fewer GPUs than processes.
    """
    import torch

    there = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if there and "ACCELERATE_USE_CPU" not in os.environ:
        if count > there:
            raise DeviceError(
                f"--processes is {count}, but this machine has {there} accelerators: a process needs one of its own"
            )
        return {}
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))}
