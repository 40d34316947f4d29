"""Several processes that make one run together, as ``accelerate launch`` would start them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

GRACE_S = 30


def together(script: str, arguments: Callable[[int], Sequence[object]], count: int, timeout_s: float = 280) -> list[int]:
    """Run a script in ``count`` processes that find one another over gloo, and wait for every one; returns exit statuses.

    They meet at a store of this process. It has taken its port when they are told of it: a port that is looked up, let go and
    used a moment later may by then be another program's. It also outlives them all, so that nobody misses it on the way out.
    When one process fails, the others, which would wait for it, are ended a little later.

    Args:
        arguments: of a rank.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {
        "WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "OMP_NUM_THREADS": 1,
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": Path(__file__).parents[2],
    }
    processes = []
    try:
        for rank in range(count):
            own = {name: str(value) for name, value in {**group, "RANK": rank, "LOCAL_RANK": rank}.items()}
            command = [sys.executable, script, *map(str, arguments(rank))]
            processes.append(subprocess.Popen(command, env={**os.environ, **own}))
        deadline = time.monotonic() + timeout_s
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            if any(process.returncode for process in processes):
                deadline = min(deadline, time.monotonic() + GRACE_S)
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [process.returncode for process in processes]


@pytest.fixture(scope="session", name="together")
def _together() -> Callable[..., list[int]]:
    return together
